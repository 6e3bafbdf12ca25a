"""What is known of the columns of delimited files: their names, and which types their values allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, Self

import pyarrow as pa

from airflow_aml_data.core.formats import DataType, DelimitedFormat, PromoteHeadersBehavior
from airflow_aml_data.core.tabular.base import TableFile
from airflow_aml_data.core.tabular.blocks import Block, read_blocks
from airflow_aml_data.core.tabular.columns import ColumnEvidence
from airflow_aml_data.core.tabular.declared import DeclaredColumn
from airflow_aml_data.core.tabular.parse import first_record, first_records, parse
from airflow_aml_data.core.tabular.workers import in_order

TRIAL_RECORDS = 200  # as many as v1 looks at


class Column(Protocol):
    """A column whose type is found out, or declared."""

    @property
    def type(self) -> pa.DataType:
        """Its type, so far."""

    def add(self, values: pa.Array) -> None:
        """Take in more values."""

    def merge(self, other: Self) -> None:
        """Take in what was found out from other values."""

    def convert(self, values: pa.Array) -> pa.Array | None:
        """Return text as values of :attr:`type`, or None when one of them would change the type."""


@dataclass(slots=True)
class Plan:
    """The columns of all files, in order.

    :param header: The first one found. It names the columns of every file, unless each file names its own.
    :param complete: Whether every value of every file has been taken in.
    """

    layout: DelimitedFormat
    columns: dict[str, Column] = field(default_factory=dict)
    header: Sequence[str] = ()
    complete: bool = False
    declared: Mapping[str, DataType] = field(init=False)

    def __post_init__(self) -> None:
        self.declared = self.layout.declared_types  # made once: there may be thousands

    def names(self, header: Sequence[str], width: int) -> list[str]:
        """Return the names of the columns of a file, at least ``width`` of them.

        :param header: The file's own.
        """
        if self.layout.header != PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS.name:
            header = self.header
        return column_names(header, max(len(header), width))

    def start_file(self, header: Sequence[str]) -> None:
        """Take in the names of a file's columns."""
        self.header = self.header or header
        for name in self.names(header, 0):
            self._column(name)

    def learn(self, header: Sequence[str], texts: Sequence[pa.Array]) -> dict[str, Column]:
        """Return the columns of a block of a file with what its values show; the plan stays as it is."""
        found = {}
        for name, text in zip(self.names(header, len(texts)), texts, strict=False):
            found[name] = copy(self.columns.get(name)) or self._new_column(name)
            found[name].add(text)
        return found

    def merge(self, found: dict[str, Column]) -> None:
        """Take in what :meth:`learn` returned."""
        for name, column in found.items():
            self._column(name).merge(column)

    def _column(self, name: str) -> Column:
        if name not in self.columns:
            self.columns[name] = self._new_column(name)
        return self.columns[name]

    def _new_column(self, name: str) -> Column:
        if declared := self.declared.get(name):
            return DeclaredColumn(declared)
        return ColumnEvidence() if self.layout.infer_column_types else ColumnEvidence(possible=())


def column_names(header: Sequence[str], width: int) -> list[str]:
    """Return ``width`` different names: the header's, trimmed; ``Column{position}`` for the ones it lacks.

    The second ``a`` becomes ``a_1``, or the next number that no other column has. More width adds names and changes none.

    Source: v1, semantics section 5.
    """
    given = [text.strip() for text in header] + [""] * (width - len(header))
    wished = [text or f"Column{position}" for position, text in enumerate(given, start=1)]
    taken, names = set(wished), dict[str, None]()
    for wish in wished:
        name, number = wish, 0
        while name in names or (number and name in taken):
            number += 1
            name = f"{wish}_{number}"
        names[name] = None
    return list(names)


def open_file(
    file: TableFile, layout: DelimitedFormat, block_bytes: int, *, has_header: bool
) -> tuple[list[str], Iterator[Block]]:
    """Return the header of a file, empty where there is none, and the blocks of its rows."""
    blocks = read_blocks(file, layout, block_bytes)
    if not has_header:
        return [], blocks
    for block in blocks:
        if (found := first_record(block, layout)) is not None:
            header, rest = found
            return header, chain([rest], blocks)
    return [], iter(())


def trial_plan(files: Sequence[TableFile], layout: DelimitedFormat, block_bytes: int) -> Plan:
    """Return what the first records show: of all files, or of each where each names its own columns.

    With ``type_conflict="raise"`` these are exactly :data:`TRIAL_RECORDS`, and columns without a value in them are text.
    """
    plan, left = Plan(layout), TRIAL_RECORDS
    exactly = layout.type_conflict == "raise"
    for ordinal, file in enumerate(files):
        if layout.header == PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS.name:
            left = TRIAL_RECORDS
        if left <= 0:
            break
        has_header = layout.has_header(ordinal)
        header, blocks = open_file(file, layout, block_bytes, has_header=has_header)
        plan.start_file(header)
        for block in blocks:
            texts = parse(first_records(block, layout, left) if exactly else block, layout)
            plan.merge(plan.learn(header, texts.columns))
            left -= texts.rows
            if left <= 0:
                break
    if exactly:
        for column in plan.columns.values():
            if isinstance(column, ColumnEvidence) and not column.seen:
                column.possible = ()
    return plan


def complete_plan(files: Sequence[TableFile], layout: DelimitedFormat, block_bytes: int) -> Plan:
    """Return what all values of all files show, in memory that does not grow with them."""
    plan = Plan(layout, complete=True)
    for ordinal, file in enumerate(files):
        header, blocks = open_file(file, layout, block_bytes, has_header=layout.has_header(ordinal))
        plan.start_file(header)

        def learn(block: Block, header: Sequence[str] = header) -> dict[str, Column]:
            return plan.learn(header, parse(block, layout).columns)

        for found in in_order(learn, blocks):
            plan.merge(found)
    return plan
