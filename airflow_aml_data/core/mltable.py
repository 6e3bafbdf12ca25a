"""``MLTable`` files of the SDK v2: what they say, as a dataset of ours.

Source: Microsoft's published schema, "CLI (v2) MLtable YAML schema".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from posixpath import join, normpath
from reprlib import repr as _brief
from typing import Any
from urllib.parse import urljoin

from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.definition import Definition, Source, StorePath, WebPath
from airflow_aml_data.core.filter_text import parse_filter
from airflow_aml_data.core.formats import TableFormat, format_from_json
from airflow_aml_data.core.globs import compile_glob
from airflow_aml_data.core.identity import check_relative_path
from airflow_aml_data.core.operations import DropColumns, Filter, KeepColumns, Operation, Skip, Take
from airflow_aml_data.core.partition import PartitionFormat
from airflow_aml_data.core.paths import DeclaredSource, declared_sources, settled_sources
from airflow_aml_data.core.sampling import settled_count
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.core.storage.web import WebFile
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration, InvalidPath

FILE_NAME = "MLTable"
_LONGEST_BYTES = 1024 * 1024
_KEYS = ("$schema", "type", "paths", "transformations", "traits", "metadata")
_PATH_KINDS = ("file", "folder", "pattern")
_HEADERS = {
    "all_files_same_headers": True,
    "no_header": False,
    "from_first_file": "ONLY_FIRST_FILE_HAS_HEADERS",
    "all_files_different_headers": "COMBINE_ALL_FILES_HEADERS",
}
_COLUMN_TYPES = {
    "int": "long",
    "float": "float",
    "string": "string",
    "boolean": "bool",
    "datetime": "datetime",
    "stream_info": "stream",
}
_READERS = {
    "read_delimited": (
        "delimited",
        ("delimiter", "encoding", "header", "empty_as_string", "support_multi_line", "infer_column_types"),
    ),
    "read_parquet": ("parquet", ()),
    "read_json_lines": ("json_lines", ("encoding", "invalid_lines")),
}
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_READER_OPTIONS = ("include_path_column", "path_column", "partition_size")
_CHANGES = (
    "take",
    "skip",
    "take_random_sample",
    "keep_columns",
    "drop_columns",
    "filter",
    "convert_column_types",
    "extract_columns_from_partition_format",
)


def read_mltable(workspace: ConnectedWorkspace, declared: DeclaredSource) -> Definition:
    """What the MLTable of a folder says, at this moment.

    :param declared: The folder, or the file itself.
    :raises FilesNotFound: when there is none.
    :raises InvalidDeclaration: for what it may not say, with what it may.
    """
    sources = settled_sources(workspace, [declared])
    if len(sources) != 1:
        raise InvalidDeclaration(f"An {FILE_NAME} lies in one folder, and {declared!r} has {len(sources)} paths.")
    folder = _folder(sources[0])
    try:
        table = _Table(_content(workspace, folder))
        return table.definition(
            tuple(found for kind, path in table.paths for found in _sources(workspace, folder, kind, path))
        )
    except FilesNotFound as error:
        raise FilesNotFound(f"The requested stream was not found. No {FILE_NAME} is in {_shown(folder)}.") from error
    except (InvalidDeclaration, InvalidPath) as error:
        raise type(error)(f"The {FILE_NAME} in {_shown(folder)} cannot be used: {error}") from error


class _Table:
    """One MLTable, one transformation after the other."""

    def __init__(self, content: bytes) -> None:
        import yaml

        self._content = content
        self.reader: dict[str, Any] = {}
        self.operations: list[Operation] = []
        self.include_path = False
        self.partition_format: str | None = None
        try:
            has_alias = any(isinstance(each, yaml.AliasEvent) for each in yaml.parse(content, yaml.SafeLoader))
            known: Any = None if has_alias else yaml.safe_load(content)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InvalidDeclaration(f"It is not YAML: {error}.") from error
        if has_alias:
            raise InvalidDeclaration("It holds a YAML alias (*name), which may stand for very much. Write it out.")
        _check_keys("It", known, _KEYS)
        if known.get("type", "mltable") != "mltable":
            raise InvalidDeclaration(f"type is {_brief(known['type'])}; allowed: 'mltable'.")
        self.paths = [_path(each) for each in _list("paths", known.get("paths"))]
        traits = known.get("traits") or {}
        _check_keys("traits", traits, ("timestamp_column",))
        timestamp = traits.get("timestamp_column")
        self.timestamp = None if timestamp is None else _names("timestamp_column", timestamp)[0]
        for each in _list("transformations", known.get("transformations")):
            self._transform(*_named(each))
        if not self.reader:
            raise InvalidDeclaration(f"No transformation says how files are read. Allowed: {', '.join(_READERS)}.")

    def definition(self, sources: tuple[Source, ...]) -> Definition:
        form: TableFormat = format_from_json(self.reader)
        return Definition(
            sources=sources,
            format=form,
            operations=tuple(self.operations),
            include_path=self.include_path,
            partition_format=self.partition_format,
            timestamp=self.timestamp,
        )

    def _transform(self, name: str, value: Any) -> None:
        if name in _READERS:
            self._read(name, value or {})
            return
        if name not in _CHANGES:
            raise InvalidDeclaration(f"Unknown transformation {name!r}. Allowed: {', '.join([*_READERS, *_CHANGES])}.")
        if not self.reader:
            raise InvalidDeclaration(f"{name!r} comes before files are read. Allowed there: {', '.join(_READERS)}.")
        match name:
            case "take":
                self.operations.append(Take(settled_count(value)))
            case "skip":
                self.operations.append(Skip(settled_count(value)))
            case "filter":
                self.operations.append(Filter(parse_filter(value)))
            case "keep_columns":
                self.operations.append(KeepColumns(_names(name, value)))
            case "drop_columns":
                self.operations.append(DropColumns(_names(name, value)))
            case "take_random_sample":
                self.operations.append(self._sample(value))
            case "convert_column_types":
                self._convert(value)
            case _:
                self._extract(value)

    def _read(self, name: str, options: Mapping[str, Any]) -> None:
        if self.reader:
            raise InvalidDeclaration(f"{name!r} is the second transformation that reads files; one is allowed.")
        kind, own = _READERS[name]
        _check_keys(name, options, (*own, *_READER_OPTIONS))
        if options.get("path_column", "Path") != "Path":
            raise InvalidDeclaration(f"path_column is {options['path_column']!r}; allowed: 'Path'.")
        self.include_path = bool(options.get("include_path_column", False))
        self.reader = {"kind": kind} | {key: options[key] for key in own if key in options}
        if "delimiter" in options:
            self.reader["separator"] = self.reader.pop("delimiter")
        header = self.reader.get("header")
        if isinstance(header, str):
            if header not in _HEADERS:
                raise InvalidDeclaration(f"header is {header!r}; allowed: {', '.join(_HEADERS)}.")
            self.reader["header"] = _HEADERS[header]

    def _sample(self, value: Any) -> Selection:
        _check_keys("take_random_sample", value, ("probability", "seed"))
        seed = value.get("seed")
        if seed is None:  # the same rows at each read of this file
            seed = int.from_bytes(sha256(self._content).digest()[:8], "big")
        return Selection(probability=value.get("probability"), seed=seed)

    def _convert(self, value: Any) -> None:
        types = self.reader.setdefault("set_column_types", {})
        for each in _list("convert_column_types", value):
            _check_keys("convert_column_types", each, ("columns", "column_type"))
            made = _column_type(each.get("column_type"))
            if any(isinstance(operation, Filter) for operation in self.operations):
                raise InvalidDeclaration(
                    "convert_column_types comes after a filter; put it before, for types are given as files are read."
                )
            types.update(dict.fromkeys(_names("columns", each.get("columns")), made))

    def _extract(self, value: Any) -> None:
        if self.partition_format is not None:
            raise InvalidDeclaration("extract_columns_from_partition_format stands twice; once is allowed.")
        if isinstance(value, Mapping) and isinstance(value.get("partition_format"), str):
            value = value["partition_format"]
        elif isinstance(value, Mapping) and list(value.values()) == [None]:
            value = f"{{{next(iter(value))}}}"  # {day:yyyy/MM/dd} without quotes is a mapping in YAML
        made = PartitionFormat(value)
        # v2's formats need not reach the end of the path; a star matches what is left
        self.partition_format = made.text if made.text.endswith("*") else f"{made.text}*"
        self.operations = [
            KeepColumns((*each.columns, *made.keys)) if isinstance(each, KeepColumns) else each
            for each in self.operations
        ]


def _path(entry: Any) -> tuple[str, str]:
    kind, path = _named(entry)
    _check_keys("A path", {kind: path}, _PATH_KINDS)
    if not isinstance(path, str) or not path:
        raise InvalidDeclaration(f"A path is text, found {_brief(path)}.")
    return kind, path


def _column_type(value: Any) -> dict[str, Any]:
    name, given = _named(value)
    if name not in _COLUMN_TYPES:
        raise InvalidDeclaration(f"column_type is {_brief(name)}; allowed: {', '.join(_COLUMN_TYPES)}.")
    options = {} if given is None or (name == "boolean" and _are_usual(given)) else given
    _check_keys(f"column_type {name}", options, {"datetime": ("formats",), "float": ("decimal_mark",)}.get(name, ()))
    return {
        "kind": _COLUMN_TYPES[name],
        "decimal_mark": options.get("decimal_mark", "."),
        "formats": list(_names("formats", options["formats"])) if "formats" in options else [],
    }


def _are_usual(options: Any) -> bool:
    """Whether words for booleans are those that are read anyway."""
    usual = {"true_values": {"true", "1"}, "false_values": {"false", "0"}}
    return isinstance(options, Mapping) and all(
        key in usual and isinstance(words, list) and {str(each).lower() for each in words} <= usual[key]
        for key, words in options.items()
    )


def _names(what: str, value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(each, str) for each in names):
        raise InvalidDeclaration(f"{what} is a name or a list of names, found {_brief(value)}.")
    return tuple(names)


def _named(entry: Any) -> tuple[str, Any]:
    """``name``, or ``name: options``."""
    if isinstance(entry, str):
        return entry, None
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise InvalidDeclaration(f"One name with its options was expected, found {_brief(entry)}.")
    return next((str(name), value) for name, value in entry.items())


def _list(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidDeclaration(f"{what} is a list that is not empty, found {_brief(value)}.")
    return value


def _check_keys(what: str, value: Any, allowed: Sequence[str]) -> None:
    if not isinstance(value, Mapping):
        raise InvalidDeclaration(f"{what} is keys and values, found {_brief(value)}.")
    if unknown := [key for key in value if key not in allowed]:
        raise InvalidDeclaration(
            f"{what} has unknown keys {', '.join(map(_brief, unknown))}. Allowed: {', '.join(allowed) or 'none'}."
        )


def _folder(source: Source) -> Source:
    match source:
        case WebPath(url):
            return WebPath(url if url.endswith("/") else f"{url.removesuffix(f'/{FILE_NAME}')}/")
        case StorePath(path=path) if path == FILE_NAME or path.endswith(f"/{FILE_NAME}"):
            return replace(source, path=path.removesuffix(FILE_NAME).rstrip("/"))
    return source


def _content(workspace: ConnectedWorkspace, folder: Source) -> bytes:
    if isinstance(folder, WebPath):
        return WebFile(urljoin(folder.url, FILE_NAME)).content(_LONGEST_BYTES)
    return workspace.storage(folder.datastore).read_bytes(join(folder.path, FILE_NAME))


def _sources(workspace: ConnectedWorkspace, folder: Source, kind: str, path: str) -> tuple[Source, ...]:
    """The sources of one path, which may be relative to the folder that holds the MLTable."""
    if isinstance(folder, WebPath):
        return settled_sources(workspace, declared_sources(urljoin(folder.url, path)))
    if _ADDRESS.match(path) or path.startswith("/"):
        return settled_sources(workspace, declared_sources(path))
    relative = normpath(path)
    if relative == "." or compile_glob(relative).fullmatch(FILE_NAME):
        raise InvalidDeclaration(
            f"{path!r} takes in the {FILE_NAME} itself. Give a pattern of the data, such as ./*.csv."
        )
    if isinstance(folder, StorePath):
        return (StorePath(folder.datastore, check_relative_path(normpath(join(folder.path, relative)))),)
    globs = {
        "file": re.sub(r"[*?\[]", r"[\g<0>]", relative),
        "folder": f"{relative}/**/*",
        "pattern": relative,
    }
    return (replace(folder, path_glob=check_relative_path(globs[kind])),)


def _shown(folder: Source) -> str:
    return WebFile(folder.url).name if isinstance(folder, WebPath) else f"{folder.path!r} on {folder.datastore!r}"
