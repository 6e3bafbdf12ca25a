"""The rules of retention, for any output at any moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.catalog import Candidate, RegisteredPlace
from airflow_aml_data.core.retention.registered import RegisteredData
from airflow_aml_data.core.retention.rules import RetentionPolicy, due_at, why_kept

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def output(**known) -> Candidate:
    """Nothing keeps it but its age."""
    values = dict.fromkeys(Candidate._fields, "") | {
        "size_bytes": 1,
        "created_at": NOW,
        "changed_at": NOW,
        "used_at": None,
        "used_elsewhere": False,
        "retention_days": None,
        "pin": None,
    }
    return Candidate(**{**values, **known})


def days_ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


ages = st.floats(min_value=0, max_value=200)


@given(
    changed=st.none() | ages,
    used=st.none() | ages,
    own=st.none() | st.integers(min_value=30, max_value=120),
    days=st.integers(min_value=30, max_value=120),
    store=st.integers(min_value=30, max_value=120),
    abandoned=st.integers(min_value=1, max_value=60),
    pin=st.sampled_from([None, "ann"]),
    lease=st.sampled_from(["", "a step"]),
    registered=st.sampled_from(["", "'x' version 1"]),
)
def test_an_output_goes_exactly_when_nothing_keeps_it_and_its_days_have_passed(
    changed, used, own, days, store, abandoned, pin, lease, registered
):
    created = max(each for each in (changed, used, 0.0) if each is not None)
    given_output = output(
        created_at=days_ago(created),
        changed_at=None if changed is None else days_ago(changed),
        used_at=None if used is None or changed is None else days_ago(used),
        retention_days=own,
        datastore="lake",
        pin=pin,
        lease=lease,
    )
    policy = RetentionPolicy(retention_days=days, datastore_days={"lake": store}, abandoned_days=abandoned)
    age, period = (
        (created, abandoned) if changed is None else (min(changed, changed if used is None else used), own or store)
    )
    passed = age >= period
    why = why_kept(given_output, policy, NOW, registered=registered)
    assert (why == "") == (passed and not (pin or lease or registered))


@given(days=st.integers(min_value=30, max_value=60), other=st.integers(min_value=30, max_value=60), age=ages)
def test_nothing_is_due_sooner_than_the_shortest_of_all_periods(days, other, age):
    policy = RetentionPolicy(retention_days=days, datastore_days={"lake": other}, abandoned_days=9)
    for datastore in ("lake", "other"):
        for changed, shortest in ((None, policy.abandoned_days), (days_ago(age), policy.shortest_days)):
            each = output(created_at=days_ago(age), changed_at=changed, datastore=datastore)
            assert due_at(each, policy) - days_ago(age) >= timedelta(days=shortest)


names = st.sampled_from(["a", "b", "ab"])
paths = st.lists(names, max_size=4).map("/".join)


@given(
    place=paths,
    where=paths,
    datastores=st.tuples(st.sampled_from(["lake", "alias", "other"]), st.sampled_from(["lake", "alias", "other"])),
)
def test_what_lies_around_or_inside_something_registered_is_registered(place, where, datastores):
    locations = {"lake": "https://x/lake", "alias": "https://x/lake", "other": "https://x/other"}
    known = RegisteredData({}, {f"{locations[datastores[0]]}/{place}".rstrip("/"): "'x' version 1"}, locations)
    found = known.by_what(output(datastore=datastores[1], path=where))
    one, other = ([each for each in text.split("/") if each] for text in (place, where))
    touches = one[: len(other)] == other or other[: len(one)] == one
    same = locations[datastores[0]] == locations[datastores[1]]
    assert bool(found) == (touches and same)


@pytest.mark.parametrize(
    ("path", "keeps"),
    [("in/2026/*.csv", "in/2026/data"), ("in/**", "in/x"), ("*.csv", "anything"), ("in/2026/a.csv", "in/2026")],
)
def test_a_registered_wildcard_keeps_its_folder(path, keeps):
    class Workspace:
        def locations(self):
            return {"lake": "/lake"}

    known = RegisteredData.of(Workspace(), [RegisteredPlace("'x' version 1", datastore="lake", path=path)])
    assert known.by_what(output(datastore="lake", path=keeps)) == "'x' version 1"
    assert known.by_what(output(datastore="lake", path="elsewhere" if path != "*.csv" else "any")) == (
        "'x' version 1" if path == "*.csv" else ""
    )
