"""Operations on the rows of a table, batch by batch: the same rows whatever the batches are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from airflow_aml_data.core.expressions import fields_of
from airflow_aml_data.core.operations import DropColumns, Filter, KeepColumns, Operation, Skip, Take, kept_columns
from airflow_aml_data.core.selection import Selection, StreamSelector
from airflow_aml_data.core.tabular.conditions import rows_that_meet

Positional = Selection | Take | Skip


class Positions:
    """Decide by position alone which rows a chain of operations keeps, over the files of a dataset in order.

    Each operation counts the rows that reach it: a selection those of one file, ``take`` and ``skip`` those of all.
    """

    def __init__(self, operations: Sequence[Positional]) -> None:
        self._operations = tuple(operations)
        self._left = [int(each.count) if isinstance(each, Take | Skip) else 0 for each in self._operations]
        self._selectors: list[StreamSelector | None] = []

    def start_file(self, ordinal: int) -> None:
        """Begin with the rows of a file, after all of those before it.

        :param ordinal: The file's place in the list, which is its stream.
        """
        self._selectors = [
            StreamSelector([each], ordinal) if isinstance(each, Selection) else None for each in self._operations
        ]

    def mask(self, count: int) -> NDArray[np.bool_]:
        """Return True for each of the next ``count`` rows that the whole chain keeps."""
        kept = np.ones(count, dtype=np.bool_)
        for place, (operation, selector) in enumerate(zip(self._operations, self._selectors, strict=True)):
            reaching = int(np.count_nonzero(kept))
            if selector is not None:
                decided = selector.mask(reaching)
            else:
                within = min(reaching, self._left[place])
                self._left[place] -= within
                decided = (np.arange(reaching) < within) == isinstance(operation, Take)
            if reaching == count:
                kept = decided
            else:
                kept[kept] = decided
        return kept

    @property
    def finished(self) -> bool:
        """Whether no further row is kept."""
        return any(
            isinstance(operation, Take) and not left
            for operation, left in zip(self._operations, self._left, strict=True)
        )


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
                    kept = stage.mask(batch.num_rows)
                    batch = batch if kept.all() else batch.filter(pa.array(kept))
                case Filter(expression):
                    batch = batch.filter(rows_that_meet(expression, batch))
                case _:
                    batch = batch.select(kept_columns(batch.schema.names, [stage]))
        return batch

    @property
    def finished(self) -> bool:
        """Whether nothing is left of any further batch."""
        return any(isinstance(stage, Positions) and stage.finished for stage in self._stages)


def columns_to_read(names: Sequence[str], operations: Sequence[Operation]) -> list[str]:
    """Return which columns the operations keep or look at, in the order of the data."""
    wanted = set(kept_columns(names, operations))
    for operation in operations:
        if isinstance(operation, Filter):
            wanted |= {name for name, _ in fields_of(operation.expression)}
    return [name for name in names if name in wanted]


def only_positions(operations: Sequence[Operation]) -> list[Positional] | None:
    """Return the operations if all of them choose rows by position alone, else None."""
    chosen = [each for each in operations if isinstance(each, Selection | Take | Skip)]
    return chosen if len(chosen) == len(operations) else None
