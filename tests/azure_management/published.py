"""What Azure publishes of lifecycle policies, and whether a request keeps to it: the SDK's types, and the documentation's limits."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, MutableMapping
from enum import Enum
from typing import Any

API_VERSIONS = {"2023-05-01", "2025-01-01", "2025-06-01", "2025-08-01", "2026-04-01"}
"""In all of them, a policy has the same types."""

_RULE_NAME = re.compile(r"[A-Za-z0-9-]{1,256}")
_BLOB_TYPES = {"blockBlob", "appendBlob"}
_EXCLUSIVE = {
    "daysAfterModificationGreaterThan",
    "daysAfterLastAccessTimeGreaterThan",
    "daysAfterCreationGreaterThan",
}


def problems(content: Any) -> list[str]:
    """What is wrong with the body of a PUT; nothing when the service takes it."""
    from azure.mgmt.storage.models import ManagementPolicy  # takes a second

    return list(_problems(ManagementPolicy, content, "body")) or list(_beyond_types(content))


def _problems(type_: Any, value: Any, where: str) -> Iterator[str]:
    """Where a value is not of a type of the SDK. Enums are taken at their word, though the service's are open."""
    origin, of = typing.get_origin(type_), typing.get_args(type_)
    if origin in (typing.Union, types.UnionType):
        known = [each for each in of if each is not type(None)]
        enum = next((each for each in known if isinstance(each, type) and issubclass(each, Enum)), None)
        yield from _problems(enum or known[0], value, where)
    elif origin is list:
        if not isinstance(value, list):
            yield f"{where} must be an array"
            return
        for position, each in enumerate(value):
            yield from _problems(of[0], each, f"{where}[{position}]")
    elif issubclass(type_, MutableMapping):
        yield from _of_model(type_, value, where)
    elif issubclass(type_, Enum):
        if value not in {each.value for each in type_}:
            yield f"{where} is {value!r}, not one of {[each.value for each in type_]}"
    elif type_ is float:  # only days are numbers here, and the service's own types say: whole ones
        if type(value) is not int or value < 0:
            yield f"{where} is {value!r}, not a whole number from 0 on"
    elif type(value) is not type_:
        yield f"{where} is {value!r}, not {type_.__name__}"


def _of_model(model: Any, value: Any, where: str) -> Iterator[str]:
    from azure.mgmt.storage import models

    if not isinstance(value, dict):
        yield f"{where} must be an object"
        return
    model.__new__(model)  # it collects its fields when it is first made
    hints = typing.get_type_hints(model, localns={"_models": models})
    fields = {field._rest_name: (hints[name], field._visibility) for name, field in model._attr_to_rest_field.items()}
    for name in value.keys() - fields.keys():
        yield f"{where}.{name} is no field of {model.__name__}"
    for name, (type_, visibility) in fields.items():
        if name in value and visibility == ["read"]:
            yield f"{where}.{name} is read-only"
        elif name in value:
            yield from _problems(type_, value[name], f"{where}.{name}")
        elif type(None) not in typing.get_args(type_):
            yield f"{where}.{name} is missing"


def _beyond_types(content: dict[str, Any]) -> Iterator[str]:
    if "properties" not in content:
        yield "body.properties is missing"
        return
    rules = content["properties"]["policy"]["rules"]
    names = [each["name"] for each in rules]
    if not 0 < len(rules) <= 100:
        yield f"a policy has 1 to 100 rules, not {len(rules)}"
    yield from (f"rule name {each!r} is used twice" for each in {name for name in names if names.count(name) > 1})
    yield from (f"rule name {each!r} is not alphanumeric" for each in names if not _RULE_NAME.fullmatch(each))
    for rule in rules:
        filters, actions = rule["definition"].get("filters", {}), rule["definition"]["actions"]
        if not set(filters.get("blobTypes", ["blockBlob"])) <= _BLOB_TYPES:
            yield f"rule {rule['name']!r} has blob types {filters['blobTypes']}"
        if len(filters.get("prefixMatch", [])) > 10 or len(filters.get("blobIndexMatch", [])) > 10:
            yield f"rule {rule['name']!r} has more than 10 conditions in a filter"
        if not any(actions.values()):
            yield f"rule {rule['name']!r} has no action"
        for action in actions.values():
            for name, condition in action.items():
                if isinstance(condition, dict) and len(condition.keys() & _EXCLUSIVE) != 1:
                    yield f"{name} of rule {rule['name']!r} has none, or several, of {sorted(_EXCLUSIVE)}"
