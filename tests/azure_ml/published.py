"""The types that Microsoft publishes of Azure's control plane, and where a request or an answer is not of them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

_REQUIRED, _READ_ONLY, _WRITE_ONLY = 1, 2, 4
_FROM_URL = {"name", "type", "apiVersion"}


def spec_folder() -> Path:
    """Where they are looked for."""
    default = Path(__file__).parents[2].parent / "shared" / "aml_spec"
    return Path(os.environ.get("AML_SPEC") or default)


def problems_of_request(method: str, path: str, version: str, body: Any) -> list[str]:
    """Where the body of a request is not what the published types say; nothing when they are not on this machine."""
    return _problems(method, path, version, body, sent=True)


def problems_of_answer(method: str, path: str, version: str, content: Any) -> list[str]:
    """The same of the content of a successful answer."""
    return _problems(method, path, version, content, sent=False)


def _problems(method: str, path: str, version: str, content: Any, *, sent: bool) -> list[str]:
    if not spec_folder().is_dir():
        return []
    provider, *rest = path.rpartition("/providers/")[2].split("/")
    family = {"microsoft.machinelearningservices": "ml", "microsoft.storage": "storage"}[provider.lower()]
    file = spec_folder() / "subset" / family / version / "types.json"
    if not file.is_file():
        return [f"nothing is published of {provider} at api-version {version!r}"]
    found = _types(file).problems(provider, method, rest, content, sent=sent)
    return [f"{method} {path}: {each}" for each in found]


@cache
def _types(file: Path) -> _Types:
    return _Types(json.loads(file.read_text()))


class _Types:
    """Those of one api-version of one provider."""

    def __init__(self, types: list[dict[str, Any]]) -> None:
        self.types = types

    @cached_property
    def resources(self) -> dict[str, dict[str, Any]]:
        return {
            each["name"].partition("@")[0].lower(): self.at(each["body"])
            for each in self.types
            if each["$type"] == "ResourceType"
        }

    @cached_property
    def actions(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {
            (each["resourceType"].lower(), each["name"].lower()): each
            for each in self.types
            if each["$type"] == "ResourceFunctionType"
        }

    def at(self, reference: dict[str, str]) -> dict[str, Any]:
        return self.types[int(reference["$ref"].removeprefix("#/"))]

    def problems(
        self, provider: str, method: str, rest: list[str], content: Any, *, sent: bool
    ) -> Iterator[str] | list[str]:
        """Where the content is not of them.

        :param rest: The path behind the provider: kinds and names in turn, and at the end the action of a POST.
        """
        kinds = rest[:-1:2] if method == "POST" else rest[::2]
        kind = "/".join([provider, *kinds]).lower()
        if method == "POST":
            return self._of_action(kind, rest[-1].lower(), content, sent=sent)
        if kind not in self.resources:
            return [f"there is no type {kind}"]
        type_ = self.resources[kind]
        if not sent and len(rest) % 2:
            return [
                each
                for position, item in enumerate(content["value"])
                for each in self.mismatches(type_, item, f"value[{position}]", sent)
            ]
        if not sent:
            return self.mismatches(type_, content, "answer", sent)
        if method == "GET":
            return [] if content is None else ["a GET has no body"]
        name = self.mismatches(self.at(type_["properties"]["name"]["type"]), rest[-1], "name", sent)
        found = [*name, *self.mismatches(type_, content, "body", sent)]
        return [each for each in found if not _is_allowed(kind, each)]

    def _of_action(self, kind: str, name: str, content: Any, *, sent: bool) -> Iterator[str] | list[str]:
        action = self.actions.get((kind, name), {})
        expected = action.get("input" if sent else "output")
        if expected is None:
            return [] if content is None else [f"{name} of {kind} has no {'input' if sent else 'output'}"]
        return self.mismatches(self.at(expected), content, "body" if sent else "answer", sent)

    def mismatches(self, type_: dict[str, Any], value: Any, where: str, sent: bool) -> Iterator[str]:
        match type_["$type"]:
            case "AnyType":
                return
            case "ObjectType":
                yield from self._of_object(type_, type_["properties"], value, where, sent)
            case "DiscriminatedObjectType":
                yield from self._of_discriminated(type_, value, where, sent)
            case "ArrayType":
                if not isinstance(value, list):
                    yield f"{where} is not an array"
                    return
                for position, item in enumerate(value):
                    yield from self.mismatches(self.at(type_["itemType"]), item, f"{where}[{position}]", sent)
            case "UnionType":
                known = [each["value"] for each in map(self.at, type_["elements"]) if "value" in each]
                if known and value not in known:
                    yield f"{where} is {value!r}, none of {known}"
            case _:
                yield from _of_scalar(type_, value, where)

    def _of_discriminated(self, type_: dict[str, Any], value: Any, where: str, sent: bool) -> Iterator[str]:
        elements, discriminator = type_["elements"], type_["discriminator"]
        chosen = value.get(discriminator) if isinstance(value, dict) else None
        if chosen not in elements:
            yield f"{where}.{discriminator} is {chosen!r}, none of {sorted(elements)}"
            return
        element = self.at(elements[chosen])
        yield from self._of_object(element, type_["baseProperties"] | element["properties"], value, where, sent)

    def _of_object(
        self, type_: dict[str, Any], properties: dict[str, Any], value: Any, where: str, sent: bool
    ) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{where} is not an object"
            return
        whole = where in ("body", "answer") or re.fullmatch(r"value\[\d+\]", where)
        skipped = (_FROM_URL if sent else {"type", "apiVersion"}) if whole and "apiVersion" in properties else set()
        never = _READ_ONLY if sent else _WRITE_ONLY
        for name, each in properties.items():
            present = value.get(name) is not None
            if name in skipped:
                continue
            if present and each["flags"] & never:
                yield f"{where}.{name} is {'read' if sent else 'write'}-only"
            elif present:
                yield from self.mismatches(self.at(each["type"]), value[name], f"{where}.{name}", sent)
            elif each["flags"] & _REQUIRED and not each["flags"] & never:
                yield f"{where}.{name} is missing"
        more = type_.get("additionalProperties")
        for name in value.keys() - properties.keys():
            if more is None:
                yield f"{where}.{name} is no property of {type_['name']}"
            elif value[name] is not None:
                yield from self.mismatches(self.at(more), value[name], f"{where}.{name}", sent)


def _of_scalar(type_: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    kind = type_["$type"]
    if kind == "StringLiteralType":
        if value != type_["value"]:
            yield f"{where} is {value!r}, not {type_['value']!r}"
        return
    expected = {"StringType": str, "IntegerType": int, "BooleanType": bool}[kind]
    if type(value) is not expected:
        yield f"{where} is {value!r}, not of type {expected.__name__}"
    elif kind == "StringType":
        if not type_.get("minLength", 0) <= len(value) <= type_.get("maxLength", len(value)):
            yield f"{where} has a wrong length: {len(value)}"
        elif "pattern" in type_ and not re.search(type_["pattern"], value):
            yield f"{where} is {value!r}, which does not match {type_['pattern']}"
    elif kind == "IntegerType" and not type_.get("minValue", value) <= value <= type_.get("maxValue", value):
        yield f"{where} is out of range: {value}"


def _is_allowed(kind: str, problem: str) -> bool:
    """The SDK sends a number there, and the service takes it."""
    return kind.endswith("/codes/versions") and bool(
        re.fullmatch(r"body\.properties\.properties\.hash_version is \d+, not of type str", problem)
    )
