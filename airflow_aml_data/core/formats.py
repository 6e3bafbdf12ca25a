"""How the files of a tabular dataset are read: declarations only, so that declaring one costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, ClassVar, Literal, Self, get_args

from airflow_aml_data.errors import InvalidDeclaration

CODECS = {
    "utf8": "utf-8-sig",  # v1 tolerates the mark under utf8
    "iso88591": "iso8859-1",
    "latin1": "iso8859-1",
    "ascii": "ascii",
    "utf16": "utf-16",
    "utf32": "utf-32",
    "utf8bom": "utf-8-sig",
    "windows1252": "cp1252",
}


class _Format:
    """To and from JSON, for the frozen dataclasses below."""

    __slots__ = ()
    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the declaration as plain JSON; its ``kind`` says which class reads it."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Return the declaration :meth:`to_json` wrote; what is not in it has its default.

        :raises InvalidDeclaration: another kind, an unknown key, or a value the constructor refuses.
        """
        given = dict(data)
        if (kind := given.pop("kind", None)) != cls.kind:
            raise InvalidDeclaration(f"A format of kind {cls.kind!r} was expected, found {kind!r}.")
        known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
        if unknown := sorted(given.keys() - set(known)):
            raise InvalidDeclaration(
                f"Format {cls.kind!r} has unknown keys {unknown}. Allowed: {', '.join(known) or 'none'}."
            )
        return cls(**given)


class PromoteHeadersBehavior(Enum):
    """Which files of a dataset begin with the names of their columns. Source: v1, semantics section 5."""

    NO_HEADERS = 0
    """None: ``Column1``, ``Column2``..."""
    ONLY_FIRST_FILE_HAS_HEADERS = 1
    """The first; the first records of the other files are data."""
    COMBINE_ALL_FILES_HEADERS = 2
    """Each its own: values go by name, and are null where a file has no such column."""
    ALL_FILES_HAVE_SAME_HEADERS = 3
    """Each, but the first one's names count: values go by position."""


DataKind = Literal["string", "long", "float", "bool", "datetime", "stream"]


@dataclass(frozen=True, slots=True)
class DataType:
    """The type that ``set_column_types`` gives a column. Made by the ``to_*`` calls.

    A value that is not of the type becomes null, with a warning that counts them, or an error: as ``on_error`` of
    ``to_pandas_dataframe`` says. Spaces around a value do not count, except in text.

    Source: v1, ``azureml.data.dataset_factory.DataType``, semantics section 5.
    """

    kind: DataKind
    decimal_mark: str = "."
    formats: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(DataKind):
            raise InvalidDeclaration(f"Unknown data type {self.kind!r}. Allowed: {', '.join(get_args(DataKind))}.")
        mark = self.decimal_mark
        if not isinstance(mark, str) or len(mark) != 1 or mark.isalnum() or mark in '+-" \t\r\n\0':
            raise InvalidDeclaration(f"decimal_mark is one character such as '.' or ',', found {mark!r}.")

    @staticmethod
    def to_string() -> DataType:
        """Text, as it stands."""
        return DataType("string")

    @staticmethod
    def to_long() -> DataType:
        """Whole numbers of 64 bits; ``00123`` is 123."""
        return DataType("long")

    @staticmethod
    def to_float(decimal_mark: str = ".") -> DataType:
        """Numbers as doubles, rounded where they have more digits.

        :param decimal_mark: What stands before the fraction: ``to_float(",")`` reads ``3,14``. Thousands have no marks.
        """
        return DataType("float", decimal_mark=decimal_mark)

    @staticmethod
    def to_bool() -> DataType:
        """``true`` and ``1``, ``false`` and ``0``, in any case."""
        return DataType("bool")

    @staticmethod
    def to_datetime(formats: str | Sequence[str] | None = None) -> DataType:
        """Dates and times; those with a zone become UTC.

        :param formats: As for ``strptime``, tried in their order. None: ISO 8601, and ``01/02/2020``, with a time or
            without, as month and day; when one value of the column cannot be that, as ``13/02/2020``, all are day and
            month. Reading warns when no value tells.
        """
        given = (formats,) if isinstance(formats, str) else tuple(formats or ())
        if not all(isinstance(each, str) and "%" in each for each in given):
            raise InvalidDeclaration(f"formats are strptime formats such as '%d.%m.%Y', found {formats!r}.")
        return DataType("datetime", formats=given)

    @staticmethod
    def to_stream(workspace: object = None) -> DataType:
        """Paths of files, kept as text: open them with a file dataset of the same paths.

        :param workspace: v1's; not needed to keep text.
        """
        return DataType("stream")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "decimal_mark": self.decimal_mark, "formats": list(self.formats)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DataType:
        return cls(data["kind"], data["decimal_mark"], tuple(data["formats"]))


_SAME, _NONE = PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS.name, PromoteHeadersBehavior.NO_HEADERS.name


class _TypedFormat(_Format):
    """A format with ``set_column_types``."""

    __slots__ = ()
    set_column_types: Mapping[str, DataType] | tuple[tuple[str, DataType], ...] | None

    @property
    def declared_types(self) -> dict[str, DataType]:
        """The types of columns by name."""
        return dict(self.set_column_types or ())

    def to_json(self) -> dict[str, Any]:
        types = {name: each.to_json() for name, each in self.declared_types.items()}
        return {**super().to_json(), "set_column_types": types}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        types = {name: DataType.from_json(each) for name, each in data.get("set_column_types", {}).items()}
        return super().from_json({**data, "set_column_types": types})


@dataclass(frozen=True, slots=True, kw_only=True)
class DelimitedFormat(_TypedFormat):
    """How the text files of a dataset are cut into rows and columns.

    :param separator: One character.
    :param header: True: each file starts with the same names. False: none does; ``Column1``, ``Column2``...
        Or a :class:`PromoteHeadersBehavior`, or its name; kept as True and False, or as its name.
    :param encoding: ``utf8 iso88591 latin1 ascii utf16 utf32 utf8bom windows1252``, in any case.
    :param support_multi_line: Whether a quoted value may hold line ends. False: a record ends with its line,
        and so does a quote that is still open; reading warns of the first.
    :param empty_as_string: Whether an empty field of a text column is ``''``, not null.
    :param infer_column_types: False: every column is text, but for ``set_column_types``.
    :param set_column_types: Column to :class:`DataType`; names the files have not are ignored. Kept as pairs.
    :param type_conflict: What becomes of a column with a later value that its first 200 records do not let expect.
        ``"widen"``: it gets the type that all its values fit, if need be text. ``"raise"``: an error that names
        file, line and value.
    :raises InvalidDeclaration: a value that v1 refuses too, with its words.

    Source: v1, ``Dataset.Tabular.from_delimited_files``, semantics section 5.
    """

    kind: ClassVar[str] = "delimited"

    separator: str = ","
    header: bool | str | PromoteHeadersBehavior = True
    encoding: str = "utf8"
    support_multi_line: bool = False
    empty_as_string: bool = False
    infer_column_types: bool = True
    set_column_types: Mapping[str, DataType] | tuple[tuple[str, DataType], ...] | None = ()
    type_conflict: Literal["widen", "raise"] = "widen"

    def __post_init__(self) -> None:
        _check_separator(self.separator)
        # one spelling of each: equal means equal
        object.__setattr__(self, "encoding", _encoding(self.encoding))
        object.__setattr__(self, "header", _header(self.header))
        object.__setattr__(self, "set_column_types", _column_types(self.set_column_types))
        for name in ("support_multi_line", "empty_as_string", "infer_column_types"):
            if not isinstance(value := getattr(self, name), bool):
                raise InvalidDeclaration(f"{name} must be True or False, not {value!r}.")
        if self.type_conflict not in ("widen", "raise"):
            raise InvalidDeclaration(f"type_conflict is 'widen' or 'raise', found {self.type_conflict!r}.")

    def has_header(self, ordinal: int) -> bool:
        """Whether the first record of a file holds names of columns.

        :param ordinal: The file's place in the list.
        """
        if self.header == PromoteHeadersBehavior.ONLY_FIRST_FILE_HAS_HEADERS.name:
            return ordinal == 0
        return bool(self.header)


def _encoding(value: object) -> str:
    if not isinstance(value, str) or value.lower() not in CODECS:
        raise InvalidDeclaration(f"Invalid encoding {value!r}. The supported encodings are {', '.join(CODECS)}.")
    return value.lower()


def _header(value: object) -> bool | str:
    name = getattr(value, "name", value)
    allowed = [each.name for each in PromoteHeadersBehavior]
    if isinstance(value, bool):
        return value
    if name not in allowed:
        raise InvalidDeclaration(
            f"Unsupported header provided: {value!r}. Allowed: True, False, {', '.join(reversed(allowed))}."
        )
    return {_SAME: True, _NONE: False}.get(str(name), str(name))


def _column_types(value: object) -> tuple[tuple[str, DataType], ...]:
    pairs = tuple(value.items()) if isinstance(value, Mapping) else value or ()
    if not isinstance(pairs, tuple) or not all(
        isinstance(name, str) and isinstance(type_, DataType) for name, type_ in pairs
    ):
        raise InvalidDeclaration(
            "set_column_types wants a dictionary of column names and types, such as "
            f"{{'price': DataType.to_float()}}, found {value!r}."
        )
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFormat(_TypedFormat):
    """Parquet files; columns and types are those of the files.

    :param set_column_types: Column to :class:`DataType`; names the files have not are ignored. Kept as pairs.

    Source: v1, ``Dataset.Tabular.from_parquet_files``, semantics section 5.
    """

    kind: ClassVar[str] = "parquet"

    set_column_types: Mapping[str, DataType] | tuple[tuple[str, DataType], ...] | None = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "set_column_types", _column_types(self.set_column_types))


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLinesFormat(_TypedFormat):
    """Files of one JSON object on each line.

    A column is of bool or numbers when all of its values are; all else is text: strings as they are, dates among them,
    objects and lists as JSON. What a line has no key for is null.

    :param invalid_lines: What becomes of a line that is no JSON object: ``"error"``, or ``"drop"``: it is left out, and
        reading warns how many were.
    :param encoding: As for :class:`DelimitedFormat`.
    :param set_column_types: Column to :class:`DataType`; names the files have not are ignored. Kept as pairs.
    :raises InvalidDeclaration: a value that v1 refuses too, with its words.

    Source: v1, ``Dataset.Tabular.from_json_lines_files``, semantics section 5.
    """

    kind: ClassVar[str] = "json_lines"

    invalid_lines: Literal["error", "drop"] = "error"
    encoding: str = "utf8"
    set_column_types: Mapping[str, DataType] | tuple[tuple[str, DataType], ...] | None = ()

    def __post_init__(self) -> None:
        if self.invalid_lines not in ("error", "drop"):
            raise InvalidDeclaration(
                f"Expected 'error' or 'drop' as value for invalid_lines, found {self.invalid_lines}"
            )
        object.__setattr__(self, "encoding", _encoding(self.encoding))
        object.__setattr__(self, "set_column_types", _column_types(self.set_column_types))


TableFormat = DelimitedFormat | ParquetFormat | JsonLinesFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvFiles(_Format):
    """Delimited text files to be made of a table, each with the names of the columns in its first line.

    :param separator: One character.

    Source: v1, ``to_csv_files``, semantics section 5.
    """

    kind: ClassVar[str] = "csv"

    separator: str = ","

    def __post_init__(self) -> None:
        _check_separator(self.separator)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFiles(_Format):
    """Parquet files to be made of a table. Source: v1, ``to_parquet_files``, semantics section 5."""

    kind: ClassVar[str] = "parquet"


def format_from_json(data: Mapping[str, Any]) -> TableFormat:
    """The format that ``to_json`` of any kind wrote.

    :raises InvalidDeclaration: for a kind this release does not know.
    """
    made: TableFormat = _from_json(data, DelimitedFormat, ParquetFormat, JsonLinesFormat)
    return made


def target_from_json(data: Mapping[str, Any]) -> CsvFiles | ParquetFiles:
    """The kind of files that ``to_json`` of any kind wrote.

    :raises InvalidDeclaration: for a kind this release does not know.
    """
    made: CsvFiles | ParquetFiles = _from_json(data, CsvFiles, ParquetFiles)
    return made


def _from_json(data: Mapping[str, Any], *kinds: Any) -> Any:
    for kind in kinds:
        if data.get("kind") == kind.kind:
            return kind.from_json(data)
    raise InvalidDeclaration(
        f"Unknown table format {data.get('kind')!r}. Known: {', '.join(each.kind for each in kinds)}."
    )


def _check_separator(separator: object) -> None:
    if not isinstance(separator, str) or len(separator) != 1:
        raise InvalidDeclaration("Only single character is supported for argument: separator")
    if separator in '"\r\n\0':
        raise InvalidDeclaration(f"separator cannot be {separator!r}, which has another meaning.")
