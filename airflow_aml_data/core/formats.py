"""How the files of a tabular dataset are read: declarations only, so that declaring one costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DelimitedFormat(_Format):
    """How the text files of a dataset are cut into rows and columns.

    :param separator: One character.
    :param header: True: each file starts with the same names. False: none does; ``Column1``, ``Column2``...
    :param encoding: ``utf8 iso88591 latin1 ascii utf16 utf32 utf8bom windows1252``, in any case.
    :param support_multi_line: Whether a quoted value may hold line ends. False: a record ends with its line,
        and so does a quote that is still open.
    :param empty_as_string: Whether an empty field of a text column is ``''``, not null.
    :param infer_column_types: False: every column is text.
    :raises InvalidDeclaration: a separator or an encoding that v1 refuses too, with its words.

    Source: v1, ``Dataset.Tabular.from_delimited_files``, semantics section 5.
    """

    kind: ClassVar[str] = "delimited"

    separator: str = ","
    header: bool = True
    encoding: str = "utf8"
    support_multi_line: bool = False
    empty_as_string: bool = False
    infer_column_types: bool = True

    def __post_init__(self) -> None:
        _check_separator(self.separator)
        if not isinstance(self.encoding, str) or self.encoding.lower() not in CODECS:
            raise InvalidDeclaration(
                f"Invalid encoding {self.encoding!r}. The supported encodings are {', '.join(CODECS)}."
            )
        object.__setattr__(self, "encoding", self.encoding.lower())  # one spelling: equal means equal
        if not isinstance(self.header, bool):
            raise InvalidDeclaration(f"Unsupported header provided: {self.header!r}. Allowed: True, False.")
        for name in ("support_multi_line", "empty_as_string", "infer_column_types"):
            if not isinstance(value := getattr(self, name), bool):
                raise InvalidDeclaration(f"{name} must be True or False, not {value!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFormat(_Format):
    """Parquet files; columns and types are those of the files."""

    kind: ClassVar[str] = "parquet"


TableFormat = DelimitedFormat | ParquetFormat


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
    made: TableFormat = _from_json(data, DelimitedFormat, ParquetFormat)
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
