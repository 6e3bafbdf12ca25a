"""Which records a sample or one side of a split keeps: a decision per position, the same for ever.

Record number i of a stream has a number u in [0, 1) of its own, drawn from (seed, stream, i) and nothing
else. A sample keeps the records with u < probability, the other side of the split those with
u >= probability. So nothing has to be remembered between two reads, and any part of a stream can be decided
by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from airflow_aml_data.errors import InvalidDeclaration

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

_PER_COUNTER = 4  # Philox gives four 64-bit numbers for each value of its counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Keep a record when u < probability; with ``complement`` when u >= probability.

    The two sides are disjoint and together complete, a smaller probability keeps a part of what a larger one
    keeps (same seed), and 0.0 and 1.0 are exact. Sizes are otherwise approximate.

    :param probability: From 0.0 to 1.0.
    :param seed: Any int; 0, negative and huge ones are seeds like others.
    :param complement: The second part of a split.
    :raises InvalidDeclaration: probability or seed is not such a number.

    Source: v1, semantics section 7; ``seed=0`` reproducible: section 15.
    """

    probability: float
    seed: int
    complement: bool = False

    def __post_init__(self) -> None:
        p = self.probability
        if isinstance(p, bool) or not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
            raise InvalidDeclaration(f"probability must be a number between 0.0 and 1.0, not {p!r}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise InvalidDeclaration(f"seed must be an int, not {self.seed!r}.")

    def mask(self, count: int, *, stream: int, start: int = 0) -> NDArray[np.bool_]:
        """Return the decisions for records ``start`` to ``start + count - 1`` of a stream, True for kept.

        Asking in one piece or in many gives the same answers.

        :param stream: Ordinal of the file in the dataset's list; 0 for the list of files itself.
        """
        import numpy as np

        raw = _raw(self.seed, stream, start, count)
        limit = math.ceil(self.probability * 2.0**53) << 11  # u < probability, without making every u
        kept: NDArray[np.bool_] = raw < np.uint64(limit) if limit < 2**64 else np.ones(count, dtype=np.bool_)
        return ~kept if self.complement else kept


class StreamSelector:
    """Decide on one stream, batch by batch, for a chain of selections.

    Each selection counts the records that reach it, so the second of two starts again at 0 with the first
    record the first one kept. A chain with one seed therefore keeps its proportions, not all or nothing.

    :param selections: In the order they were asked for; none keeps every record.
    :param stream: As for :meth:`Selection.mask`.

    Source: v1, semantics section 7, item 4.
    """

    def __init__(self, selections: Sequence[Selection], stream: int) -> None:
        self._selections = tuple(selections)
        self._stream = stream
        self._reached = [0] * len(self._selections)

    def mask(self, count: int) -> NDArray[np.bool_]:
        """Return True for each of the next ``count`` records that the whole chain keeps."""
        import numpy as np

        kept = np.ones(count, dtype=np.bool_)
        for place, selection in enumerate(self._selections):
            reaching = int(np.count_nonzero(kept))
            kept[kept] = selection.mask(reaching, stream=self._stream, start=self._reached[place])
            self._reached[place] += reaching
        return kept


def select(items: Sequence[T], selections: Sequence[Selection]) -> list[T]:
    """Return the items that a chain of selections keeps, in their order.

    Source: v1, golden case G56: for a FileDataset the records are the files of the list.
    """
    kept = StreamSelector(selections, stream=0).mask(len(items))
    return [item for item, keep in zip(items, kept, strict=True) if keep]


def _raw(seed: int, stream: int, start: int, count: int) -> NDArray[np.uint64]:
    """Return what u of ``count`` records from ``start`` on is made of: its upper 53 bits, times 2**-53, are u.

    NumPy promises the raw numbers of its bit generators for ever, those of ``Generator.random`` not.
    """
    from hashlib import sha256

    import numpy as np

    # hexadecimal: Python refuses to write ints of more than 4,300 decimal digits
    key = int.from_bytes(sha256(f"{seed:x}/{stream:x}".encode()).digest()[:16], "little")
    counter, skip = divmod(start, _PER_COUNTER)
    return np.random.Philox(key=key, counter=counter).random_raw(skip + count)[skip:]
