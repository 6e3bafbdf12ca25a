"""Azure's own lifecycle rules: the one for intermediate data of a container, its place among others, and what is wrong with others.

A policy is the service's plain JSON, ``{"rules": [...]}``; nothing here asks the service or the catalog.

A rule knows when a file was changed, and nothing of who reads it, what is registered and what is pinned: whoever writes one
asks :func:`lint` before. Source: Azure, "Lifecycle management policies"; the article, on deleting intermediate data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from airflow_aml_data.core.identity import FLOOR_DAYS, check_relative_path
from airflow_aml_data.core.outputs import DEFAULT_PATH
from airflow_aml_data.errors import InvalidDeclaration, InvalidPath

INTERMEDIATE_PREFIXES = (DEFAULT_PATH.partition("/{")[0],)
"""Where outputs go whose destination names a datastore and no path."""

RULES_LIMIT, PREFIXES_LIMIT = 100, 10
"""Of a policy, and of one of its rules. Source: Azure, "Lifecycle management policies"."""

Harm = Literal["delete", "archive"]
Kind = Literal["registered", "pinned", "output", "manifests"]

_RULE = "airflow-aml-data"
_CONTAINER = re.compile(r"[a-z0-9-]{3,63}")
_NOT_PLAIN = re.compile(r"[*?\[{]")
_HARMS: Mapping[str, Harm] = {"delete": "delete", "tierToArchive": "archive"}
_AGES = (
    "daysAfterModificationGreaterThan",
    "daysAfterCreationGreaterThan",
    "daysAfterLastAccessTimeGreaterThan",
)
_EXAMPLES = 5
_HARM_TEXTS: Mapping[Harm, str] = {
    "delete": "deletes",
    "archive": "moves to the archive tier, where nobody can read it,",
}
_KIND_TEXTS: Mapping[Kind, str] = {
    "registered": "data of registered datasets",
    "pinned": "pinned outputs",
    "output": "outputs that are kept longer",
    "manifests": "manifests, without which nobody knows an output's files",
}
_REMEDIES: Mapping[Kind, str] = {
    "registered": "Take it out of the rule's prefixMatch: registered data is kept until its datasets are unregistered",
    "pinned": "Take them out of the rule's prefixMatch, or unpin them",
    "output": "Raise the rule's days to at least {days}",
    "manifests": "Narrow the rule's prefixMatch to folders of outputs",
}


class KeptPlace(NamedTuple):
    """A folder or file that must not go yet.

    :param path: With its container as first folder, as a rule's prefixes have it; no slash at the end.
    :param what: Its name in messages.
    :param days: Days after its last change for which it is kept; None: for good.
    """

    path: str
    kind: Kind
    what: str
    days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleFinding:
    """What one rule of a policy would do to data that has to stay; its text is a sentence with what to do.

    :param days: The rule's, after the files' last change, creation or access.
    :param count: How many datasets, outputs or folders it would harm.
    :param examples: The first few, by name.
    :param needed_days: What the rule needs at least; None: no number of days is enough.
    :param tags: Conditions on blob index tags that limit the rule: files without such tags are safe.
    """

    rule: str
    action: Harm
    days: float
    kind: Kind
    count: int
    examples: tuple[str, ...]
    needed_days: int | None = None
    tags: tuple[str, ...] = ()

    def __str__(self) -> str:
        tagged = f" that have the tags {', '.join(self.tags)}" if self.tags else ""
        more = ", ..." if self.count > len(self.examples) else ""
        return (
            f"Lifecycle rule {self.rule!r} {_HARM_TEXTS[self.action]} files{tagged} after {self.days:g} days, and among them are "
            f"{_KIND_TEXTS[self.kind]} ({self.count}: {', '.join(self.examples)}{more}). "
            f"{_REMEDIES[self.kind].format(days=self.needed_days)}."
        )


def rule_for(container: str, prefixes: Sequence[str], days: int | str, *, is_hierarchical: bool) -> dict[str, Any]:
    """The rule that deletes files in some folders of a container, some days after their last change.

    With them go their snapshots and, where the account keeps them, earlier versions, which would be paid for on and on.

    :param prefixes: Folders, relative to the container's root.
    :param days: At least those for which pipelines count on intermediate data.
    :param is_hierarchical: Whether the account is one of Data Lake Gen2, which keeps no versions.
    :raises InvalidDeclaration: for fewer days, none or more than ten folders, and folders that are not plain.
    :raises InvalidPath: for the whole container, and folders outside of it.
    """
    if not _CONTAINER.fullmatch(container):
        raise InvalidDeclaration(
            f"Container {container!r} cannot have a lifecycle rule: Azure applies them to no container of the system."
        )
    if not str(days).isdecimal() or int(days) < FLOOR_DAYS:
        raise InvalidDeclaration(
            f"days is {days!r}. Allowed: a whole number from {FLOOR_DAYS} on, because pipelines count on intermediate data for "
            f"{FLOOR_DAYS} days, and Azure asks nobody before it deletes. What has to go sooner is for the retention DAG, with a reason."
        )
    created = {"delete": {"daysAfterCreationGreaterThan": int(days)}}
    actions: dict[str, Any] = {"baseBlob": {"delete": {"daysAfterModificationGreaterThan": int(days)}}}
    if not is_hierarchical:
        actions |= {"snapshot": created, "version": created}
    return {
        "enabled": True,
        "name": f"{_RULE}-{container}",
        "type": "Lifecycle",
        "definition": {
            "filters": {
                "blobTypes": ["blockBlob"],
                "prefixMatch": [f"{container}/{each}/" for each in _folders(prefixes)],
            },
            "actions": actions,
        },
    }


def merge(policy: Mapping[str, Any], rule: Mapping[str, Any]) -> dict[str, Any]:
    """The policy with our rule: in place of the one of its name, else at the end. All others stay as they are, and where.

    :raises InvalidDeclaration: when that would be more rules than a policy may have.
    """
    rules = list(policy.get("rules") or [])
    at = next((i for i, each in enumerate(rules) if each["name"] == rule["name"]), len(rules))
    merged = [*rules[:at], dict(rule), *rules[at + 1 :]]
    if len(merged) > RULES_LIMIT:
        raise InvalidDeclaration(
            f"The account's lifecycle policy has {len(rules)} rules, and Azure allows {RULES_LIMIT}. Remove or join some of them first."
        )
    return {**policy, "rules": merged}


def lint(policy: Mapping[str, Any], kept: Iterable[KeptPlace]) -> list[LifecycleFinding]:
    """What is wrong with a policy: rules that would delete, or move to the archive, what has to stay; in the order of its rules.

    Rules that are not enabled, and what they do to earlier versions and snapshots, harm nothing.
    """
    places = sorted(kept, key=lambda each: each[:3])
    return [finding for rule in policy.get("rules") or [] for finding in _lint_rule(rule, places)]


def refuse_harm(rule: Mapping[str, Any], kept: Iterable[KeptPlace]) -> None:
    """:raises InvalidDeclaration: when a rule that is to be written would delete what has to stay."""
    if found := lint({"rules": [rule]}, kept):
        raise InvalidDeclaration(
            f"The rule is not written, and one that was written before stays. {' '.join(map(str, found))}"
        )


def _folders(prefixes: Sequence[str]) -> list[str]:
    folders = list(dict.fromkeys(map(_folder, prefixes)))
    if not 0 < len(folders) <= PREFIXES_LIMIT:
        raise InvalidDeclaration(
            f"A lifecycle rule has 1 to {PREFIXES_LIMIT} prefixes, here are {len(folders)}. Name a folder above some of them."
        )
    return folders


def _folder(prefix: str) -> str:
    folder = check_relative_path(prefix)
    if not folder:
        raise InvalidPath(
            f"Prefix {prefix!r} is the whole container, with the manifests of its outputs. Name folders that hold nothing but "
            f"intermediate data, such as {INTERMEDIATE_PREFIXES[0]!r}."
        )
    if _NOT_PLAIN.search(folder):
        raise InvalidDeclaration(
            f"Prefix {prefix!r} has a wildcard or a placeholder, which a lifecycle rule takes literally. Name the folders before it."
        )
    return folder


def _lint_rule(rule: Mapping[str, Any], places: Sequence[KeptPlace]) -> Iterator[LifecycleFinding]:
    filters = rule["definition"].get("filters") or {}
    tags = tuple(f"{each['name']} {each['op']} {each['value']}" for each in filters.get("blobIndexMatch") or [])
    for harm, days in _harms(rule):
        found: dict[Kind, list[KeptPlace]] = {}
        for each in places:
            if (each.days is None or days < each.days) and _reaches(filters, each):
                found.setdefault(each.kind, []).append(each)
        for kind, harmed in found.items():
            names = tuple(dict.fromkeys(each.what for each in harmed))
            yield LifecycleFinding(
                rule=rule["name"],
                action=harm,
                days=days,
                kind=kind,
                count=len(names),
                examples=names[:_EXAMPLES],
                needed_days=max((each.days for each in harmed if each.days is not None), default=None),
                tags=tags,
            )


def _harms(rule: Mapping[str, Any]) -> Iterator[tuple[Harm, float]]:
    """What an enabled rule does to files that nobody can read afterwards, and after how many days at the earliest."""
    if rule.get("enabled") is False:
        return
    actions = rule["definition"]["actions"].get("baseBlob") or {}
    for name, harm in _HARMS.items():
        if condition := actions.get(name):
            yield harm, min((condition[age] for age in _AGES if condition.get(age) is not None), default=0)


def _reaches(filters: Mapping[str, Any], place: KeptPlace) -> bool:
    """Whether a rule may concern a file of a place. Its prefixes end anywhere in a name, also of a container."""
    types = {each.lower() for each in filters.get("blobTypes") or []}
    if types and "blockblob" not in types and place.kind != "registered":
        return False  # what steps write are block blobs
    inside = f"{place.path}/"
    return any(inside.startswith(each) or each.startswith(inside) for each in filters.get("prefixMatch") or [""])
