"""Lifecycle rules as plain JSON: ours, its place among others, and what others would harm. Nothing here asks anybody."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.retention.lifecycle import (
    INTERMEDIATE_PREFIXES,
    RULES_LIMIT,
    KeptPlace,
    lint,
    merge,
    refuse_harm,
    rule_for,
)
from airflow_aml_data.errors import InvalidDeclaration, InvalidPath
from tests.azure_management.published import problems

REGISTERED = KeptPlace("data/raw/flights", "registered", "dataset 'flights' version 1")
OUTPUT = KeptPlace("data/dataset/run/out", "output", "run/out", 30)
PINNED = KeptPlace("data/dataset/run/pinned", "pinned", "run/pinned")
MANIFESTS = KeptPlace("data/.aml_data", "manifests", "data/.aml_data")
ALL = [REGISTERED, OUTPUT, PINNED, MANIFESTS]


def ours(container: str = "data", *prefixes: str, days: int | str = 30) -> dict[str, Any]:
    return rule_for(container, prefixes or INTERMEDIATE_PREFIXES, days, is_hierarchical=False)


def theirs(
    *prefixes: str, name: str = "theirs", enabled: bool | None = True, filters: Any = None, **actions: Any
) -> dict[str, Any]:
    """A rule of somebody else's.

    :param actions: On files; none: they are deleted a day after their last change.
    """
    definition = {
        "filters": {"blobTypes": ["blockBlob"], "prefixMatch": list(prefixes)} | (filters or {}),
        "actions": {"baseBlob": actions or {"delete": {"daysAfterModificationGreaterThan": 1}}},
    }
    rule = {"name": name, "type": "Lifecycle", "definition": definition}
    return rule if enabled is None else rule | {"enabled": enabled}


def harms(rule: dict[str, Any], *places: KeptPlace) -> set[tuple[str, str]]:
    """What a rule does to which places."""
    return {(each.action, each.kind) for each in lint({"rules": [rule]}, places or ALL)}


def test_our_rule_is_what_azure_publishes():
    rule = ours()

    assert problems({"properties": {"policy": {"rules": [rule]}}}) == []
    assert rule["name"] == "airflow-aml-data-data"
    assert rule["definition"]["filters"] == {"blobTypes": ["blockBlob"], "prefixMatch": ["data/dataset/"]}
    assert rule["definition"]["actions"] == {
        "baseBlob": {"delete": {"daysAfterModificationGreaterThan": 30}},
        "snapshot": {"delete": {"daysAfterCreationGreaterThan": 30}},
        "version": {"delete": {"daysAfterCreationGreaterThan": 30}},
    }


def test_data_lake_gen2_has_no_versions_to_delete():
    rule = rule_for("data", ["a"], 30, is_hierarchical=True)

    assert list(rule["definition"]["actions"]) == ["baseBlob"]


def test_the_default_prefix_is_where_outputs_without_a_path_go():
    assert OutputFileDatasetConfig("x", destination=("scratch", None)).path_template.startswith(
        f"{INTERMEDIATE_PREFIXES[0]}/"
    )


def test_prefixes_end_with_their_folder_and_each_counts_once():
    rule = ours("data", "/a/b/", "a/b", "c")

    assert rule["definition"]["filters"]["prefixMatch"] == ["data/a/b/", "data/c/"]


@pytest.mark.parametrize("days", [29, 0, -31, "29", "soon", 30.5, True])
def test_a_rule_shorter_than_the_days_pipelines_count_on_is_refused(days):
    """CAUTION of the article: delete intermediate data only 30 days after its last change."""
    with pytest.raises(
        InvalidDeclaration, match="Allowed: a whole number from 30 on, because pipelines count on intermediate"
    ):
        ours(days=days)


@pytest.mark.parametrize(
    ("prefix", "error", "message"),
    [
        ("", InvalidPath, "is the whole container"),
        ("/", InvalidPath, "is the whole container"),
        ("./", InvalidPath, "is the whole container"),
        ("../other", InvalidPath, "never leave it"),
        (".aml_data/manifests", InvalidPath, "reserved for staging and manifests"),
        ("a/{run-id}", InvalidDeclaration, "wildcard or a placeholder, .* Name the folders before it"),
        ("a/*", InvalidDeclaration, "wildcard or a placeholder"),
    ],
)
def test_a_prefix_that_is_no_plain_folder_is_refused(prefix, error, message):
    with pytest.raises(error, match=message):
        ours("data", prefix)


def test_no_prefix_and_more_than_ten_are_refused():
    with pytest.raises(InvalidDeclaration, match="has 1 to 10 prefixes, here are 0"):
        rule_for("data", [], 30, is_hierarchical=False)
    with pytest.raises(InvalidDeclaration, match="has 1 to 10 prefixes, here are 11"):
        ours("data", *map(str, range(11)))
    assert len(ours("data", *map(str, range(10)))["definition"]["filters"]["prefixMatch"]) == 10


def test_a_container_of_the_system_is_refused():
    with pytest.raises(InvalidDeclaration, match=r"Container '\$web' cannot have a lifecycle rule"):
        ours("$web")


def test_a_rule_more_than_a_policy_may_have_is_refused():
    full = {"rules": [theirs(name=str(i)) for i in range(RULES_LIMIT)]}

    with pytest.raises(InvalidDeclaration, match="has 100 rules, and Azure allows 100"):
        merge(full, ours())
    full["rules"][50] = ours(days=90)
    assert merge(full, ours())["rules"][50] == ours()


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["a", "b", "airflow-aml-data", "airflow-aml-data-data", "airflow-aml-data-data2", "AIRFLOW"])
rules = st.builds(lambda name, more: {**more, "name": name}, names, st.dictionaries(st.text(max_size=5), anything))
policies = st.builds(
    lambda more, listed: {**more, "rules": listed},
    st.dictionaries(st.text(max_size=5), anything, max_size=2),
    st.lists(rules, max_size=6, unique_by=lambda each: each["name"]),
)


@given(policies)
def test_rules_that_are_not_ours_are_never_changed(policy):
    before = json.dumps(policy)
    rule = ours()

    merged = merge(policy, rule)

    others = [json.dumps(each) for each in policy["rules"] if each["name"] != rule["name"]]
    assert [json.dumps(each) for each in merged["rules"] if each["name"] != rule["name"]] == others
    assert [each for each in merged["rules"] if each["name"] == rule["name"]] == [rule]
    assert {**merged, "rules": 0} == {**policy, "rules": 0}
    assert merge(merged, rule) == merged
    assert json.dumps(policy) == before


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (theirs("data/raw/"), {("delete", "registered")}),
        (theirs("data/raw/flights/2013"), {("delete", "registered")}),
        (theirs("data/r"), {("delete", "registered")}),
        (theirs("data/raw/flights-old"), set()),
        (theirs("data/raw2/"), set()),
        (theirs("Data/raw/"), set()),
        (theirs("other/"), set()),
        (theirs("data2", "data/dataset/run/out/"), {("delete", "output")}),
        (theirs("data/dataset/"), {("delete", "output"), ("delete", "pinned")}),
        (theirs("data/.aml"), {("delete", "manifests")}),
        (theirs("dat"), {("delete", each.kind) for each in ALL}),
        (theirs(), {("delete", each.kind) for each in ALL}),
        (theirs(filters={"prefixMatch": None}), {("delete", each.kind) for each in ALL}),
        (theirs("data/raw/", enabled=None), {("delete", "registered")}),
        (theirs("data/raw/", enabled=False), set()),
        (theirs(filters={"blobTypes": ["appendBlob"]}), {("delete", "registered")}),
    ],
)
def test_lint_finds_rules_by_what_their_prefixes_reach(rule, expected):
    assert harms(rule) == expected


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ({"delete": {"daysAfterModificationGreaterThan": 29}}, {("delete", "output"), ("delete", "registered")}),
        ({"delete": {"daysAfterModificationGreaterThan": 30}}, {("delete", "registered")}),
        ({"delete": {"daysAfterCreationGreaterThan": 29.0}}, {("delete", "output"), ("delete", "registered")}),
        ({"delete": {"daysAfterLastAccessTimeGreaterThan": 365}}, {("delete", "registered")}),
        (
            {"tierToArchive": {"daysAfterModificationGreaterThan": 3}},
            {("archive", "output"), ("archive", "registered")},
        ),
        ({"tierToCool": {"daysAfterModificationGreaterThan": 0}}, set()),
        (
            {
                "tierToArchive": {"daysAfterModificationGreaterThan": 60, "daysAfterLastTierChangeGreaterThan": 7},
                "delete": {"daysAfterModificationGreaterThan": 90},
            },
            {("archive", "registered"), ("delete", "registered")},
        ),
    ],
)
def test_lint_counts_the_days_of_what_nobody_can_read_afterwards(actions, expected):
    assert harms(theirs(**actions), REGISTERED, OUTPUT) == expected


def test_what_a_rule_does_to_versions_and_snapshots_harms_nothing():
    rule = theirs()
    rule["definition"]["actions"] = {"version": {"delete": {"daysAfterCreationGreaterThan": 1}}}

    assert lint({"rules": [rule]}, ALL) == []


def test_a_finding_says_what_would_go_when_and_what_to_do():
    outputs = [KeptPlace(f"data/dataset/{i}", "output", f"run/{i}", 30 + i) for i in range(7)]
    tagged = {"blobIndexMatch": [{"name": "project", "op": "==", "value": "x"}]}

    registered, output = lint(
        {"rules": [theirs("data/raw/", filters=tagged), theirs("data/dataset/", name="old")]}, [REGISTERED, *outputs]
    )

    assert str(registered) == (
        "Lifecycle rule 'theirs' deletes files that have the tags project == x after 1 days, and among them are data of registered "
        "datasets (1: dataset 'flights' version 1). Take it out of the rule's prefixMatch: registered data is kept until its datasets "
        "are unregistered."
    )
    assert (output.rule, output.days, output.count, output.examples[:2], output.needed_days) == (
        "old",
        1,
        7,
        ("run/0", "run/1"),
        36,
    )
    assert "(7: run/0, run/1, run/2, run/3, run/4, ...). Raise the rule's days to at least 36." in str(output)


@pytest.mark.parametrize(
    "place",
    [
        KeptPlace("data/dataset/run/out", "registered", "dataset 'x' version 1"),
        KeptPlace("data", "registered", "dataset 'everything' version 1"),
        KeptPlace("data/dataset/run/out", "pinned", "run/out"),
        KeptPlace("data/dataset/run/out", "output", "run/out", 31),
    ],
)
def test_our_rule_is_refused_where_something_has_to_stay(place):
    with pytest.raises(
        InvalidDeclaration, match=r"The rule is not written, .* Lifecycle rule 'airflow-aml-data-data' deletes"
    ):
        refuse_harm(ours(), [place])


def test_our_rule_is_harmless_where_nothing_has_to_stay():
    refuse_harm(ours(), [REGISTERED, OUTPUT, MANIFESTS, PINNED._replace(path="data/models/pinned")])
