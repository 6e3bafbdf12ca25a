"""Operations on the rows of a table, batch by batch: the same rows whatever the batches are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from airflow_aml_data.core.expressions import fields_of
from airflow_aml_data.core.operations import DropColumns, Filter, KeepColumns, Operation, Skip, Take, kept_columns
from airflow_aml_data.core.selection import Selection, StreamSelector
from airflow_aml_data.core.tabular.conditions import rows_that_meet

Positional = Selection | Take | Skip


class Positions:
    """Decide by position alone which rows chains of operations keep, over the files of a dataset in order.

    Each operation counts the rows that reach it: a selection those of one file, ``take`` and ``skip`` those of all. What
    several chains begin with is decided once for all of them, and so are the two sides of a split.
    """

    def __init__(self, *chains: Sequence[Positional]) -> None:
        self._chains = [tuple(each) for each in chains]
        self._counters = {
            chain[:length]: _Counter(chain[length - 1]) for chain in self._chains for length in range(1, len(chain) + 1)
        }

    def start_file(self, ordinal: int) -> None:
        """Begin with the rows of a file, after all of those before it.

        :param ordinal: The file's place in the list, which is its stream.
        """
        for each in self._counters.values():
            each.start_file(ordinal)

    def masks(self, count: int) -> list[NDArray[np.bool_]]:
        """Return, for each chain, True for those of the next ``count`` rows that the whole chain keeps."""
        kept: dict[tuple[Positional, ...], NDArray[np.bool_]] = {(): np.ones(count, dtype=np.bool_)}
        for beginning, counter in self._counters.items():
            reaching = kept[beginning[:-1]]
            other_side = kept.get(_other_side(beginning))
            kept[beginning] = counter.narrowed(reaching) if other_side is None else reaching & ~other_side
        return [kept[each] for each in self._chains]

    @property
    def finished(self) -> list[bool]:
        """Whether no further row is kept, for each chain."""
        return [
            any(self._counters[chain[:length]].finished for length in range(1, len(chain) + 1))
            for chain in self._chains
        ]


def _other_side(chain: tuple[Positional, ...]) -> tuple[Positional, ...]:
    """Return the chain that keeps what this one, as its last operation, leaves out; itself when there is none."""
    match chain[-1]:
        case Selection() as last:
            return (*chain[:-1], replace(last, complement=not last.complement))
    return chain


class _Counter:
    """One operation, and the rows that have reached it."""

    def __init__(self, operation: Positional) -> None:
        self._operation = operation
        self._selector: StreamSelector | None = None
        self._left = 0 if isinstance(operation, Selection) else int(operation.count)

    def start_file(self, ordinal: int) -> None:
        if isinstance(self._operation, Selection):
            self._selector = StreamSelector([self._operation], ordinal)

    def narrowed(self, reaching: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which of the next rows are kept, of those that reach the operation."""
        count = int(np.count_nonzero(reaching))
        if self._selector is not None:
            decided = self._selector.mask(count)
        else:
            within = min(count, self._left)
            self._left -= within
            decided = (np.arange(count) < within) == isinstance(self._operation, Take)
        if count == len(reaching):
            return decided
        kept = reaching.copy()
        kept[reaching] = decided
        return kept

    @property
    def finished(self) -> bool:
        return isinstance(self._operation, Take) and not self._left


class Chain:
    """Apply operations to the batches of a dataset, file after file."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._stages: list[Positions | Filter | KeepColumns | DropColumns] = []
        positional: list[Positional] = []
        for operation in operations:
            if isinstance(operation, Selection | Take | Skip):
                positional.append(operation)
                continue
            self._add(positional)
            self._stages.append(operation)
            positional = []
        self._add(positional)

    def _add(self, positional: Sequence[Positional]) -> None:
        if positional:
            self._stages.append(Positions(positional))

    def start_file(self, ordinal: int) -> None:
        """Begin with the batches of a file, after all of those before it."""
        for stage in self._stages:
            if isinstance(stage, Positions):
                stage.start_file(ordinal)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return what all operations leave of the next batch.

        :raises InvalidDeclaration: a filter asks for what the batch has not, or none of ``keep_columns`` is left.
        """
        for stage in self._stages:
            match stage:
                case Positions():
                    [kept] = stage.masks(batch.num_rows)
                    batch = _filtered(batch, kept)
                case Filter(expression):
                    batch = batch.filter(rows_that_meet(expression, batch))
                case _:
                    batch = batch.select(kept_columns(batch.schema.names, [stage]))
        return batch

    @property
    def finished(self) -> bool:
        """Whether nothing is left of any further batch."""
        return any(isinstance(stage, Positions) and stage.finished == [True] for stage in self._stages)


class Chains:
    """Apply several chains of operations to the batches of a dataset, file after file.

    What all of them begin with is done once; their first choices by position are made together.
    """

    def __init__(self, chains: Sequence[Sequence[Operation]]) -> None:
        shared = len(list(takewhile(_all_equal, zip(*chains, strict=False))))
        while shared and isinstance(chains[0][shared - 1], Positional):
            shared -= 1
        tails = [each[shared:] for each in chains]
        positional = [only_positions(list(takewhile(_is_positional, each))) for each in tails]
        self._shared = Chain(chains[0][:shared])
        self._positions = Positions(*positional)
        self._rest = [Chain(tail[len(begun) :]) for tail, begun in zip(tails, positional, strict=True)]

    def start_file(self, ordinal: int) -> None:
        """Begin with the batches of a file, after all of those before it."""
        self._shared.start_file(ordinal)
        self._positions.start_file(ordinal)
        for each in self._rest:
            each.start_file(ordinal)

    def apply(self, batch: pa.RecordBatch) -> list[pa.RecordBatch]:
        """Return what each chain leaves of the next batch.

        :raises InvalidDeclaration: as :meth:`Chain.apply`.
        """
        batch = self._shared.apply(batch)
        masks = self._positions.masks(batch.num_rows)
        return [rest.apply(_filtered(batch, kept)) for rest, kept in zip(self._rest, masks, strict=True)]

    @property
    def finished(self) -> bool:
        """Whether nothing is left of any further batch."""
        each = zip(self._positions.finished, self._rest, strict=True)
        return all(positions or rest.finished for positions, rest in each)


def _all_equal(items: tuple[Operation, ...]) -> bool:
    return all(each == items[0] for each in items)


def _is_positional(operation: Operation) -> bool:
    return isinstance(operation, Positional)


def _filtered(batch: pa.RecordBatch, kept: NDArray[np.bool_]) -> pa.RecordBatch:
    return batch if kept.all() else batch.filter(as_arrow(kept))


def as_arrow(kept: NDArray[np.bool_]) -> pa.BooleanArray:
    """Return a mask for Arrow; pa.array would import pandas, which takes a second and 40 MB."""
    bits = np.packbits(kept, bitorder="little")
    return pa.BooleanArray.from_buffers(pa.bool_(), len(kept), [None, pa.py_buffer(bits)])


def columns_to_read(names: Sequence[str], operations: Sequence[Operation]) -> list[str]:
    """Return which columns the operations keep or look at, in the order of the data."""
    wanted = set(kept_columns(names, operations))
    for operation in operations:
        if isinstance(operation, Filter):
            wanted |= {name for name, _ in fields_of(operation.expression)}
    return [name for name in names if name in wanted]


def only_positions(operations: Sequence[Operation]) -> list[Positional]:
    """Return those of the operations that choose rows by position alone."""
    return [each for each in operations if isinstance(each, Positional)]
