"""Operations as they are declared: numbers may be templates, a seed may be yet to be drawn, a time relative to now."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from airflow_aml_data.core.expressions import Comparison, Operator
from airflow_aml_data.core.operations import Filter, Operation, Skip, Take
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.errors import InvalidDeclaration

_calls = itertools.count()


def is_template(value: object) -> bool:
    """Whether a value is a Jinja template, which becomes known when the step runs."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """One ``take_sample``, or one part of a ``random_split``, as declared.

    :param seed: None: drawn. ``drawn`` decides outside a DAG run; inside one, the run and ``call`` do, so that
        every step of the run, each in a process of its own, sees the same parts.
    """

    probability: float | str
    seed: int | str | None
    complement: bool = False
    call: int = field(default_factory=lambda: next(_calls), repr=False)
    drawn: int = field(default_factory=lambda: secrets.randbits(64), repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "probability", _probability(self.probability))
        object.__setattr__(self, "seed", _seed(self.seed))
        if isinstance(self.seed, int):
            object.__setattr__(self, "call", -1)  # two calls differ only when their seeds are drawn

    def selection(self, run_key: str | None) -> Selection:
        """What it keeps, settled.

        :param run_key: Names the DAG run, where there is one.
        """
        if is_template(self.probability) or is_template(self.seed):
            raise InvalidDeclaration(_not_rendered(self))
        seed = self.seed
        if seed is None:
            seed = self.drawn if run_key is None else _derived_seed(run_key, self.call)
        return Selection(probability=float(self.probability), seed=int(seed), complement=self.complement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """``time_recent``: the rows not older than some seconds when the data is read.

    :param include_boundary: Also those exactly so old.
    """

    column: str
    seconds: float
    include_boundary: bool = True


DeclaredOperation = Operation | Sampling | Recent


def settle(operation: DeclaredOperation, run_key: str | None) -> Operation:
    """The operation with nothing left open.

    :param run_key: Names the DAG run, where there is one.
    :raises InvalidDeclaration: for a template that was not rendered.
    """
    match operation:
        case Sampling():
            return operation.selection(run_key)
        case Recent():
            # v1: from the local time without a zone, cut to the second
            start = (datetime.now() - timedelta(seconds=operation.seconds)).replace(microsecond=0)
            since: Operator = ">=" if operation.include_boundary else ">"
            return Filter(Comparison(field=operation.column, operator=since, value=start))
        case Take(count) | Skip(count):
            return type(operation)(settled_count(count))
    return operation


def declared_count(value: Any) -> int | str:
    """How many records to take or skip: a whole number of at least 0, or a template.

    :raises InvalidDeclaration: with v1's words.
    """
    return str(value) if is_template(value) else settled_count(value)


def settled_count(value: Any) -> int:
    """Like :func:`declared_count`, when templates have been rendered."""
    if is_template(value):
        raise InvalidDeclaration(_not_rendered(value))
    number = _converted(value, int)
    if number is None or number < 0:
        raise InvalidDeclaration(f"count must be a positive integer. Found {value!r}.")
    return int(number)


def _not_rendered(value: Any) -> str:
    return f"{value!r} holds a template, which is rendered only for a step: give the dataset to a step's arguments or inputs."


def _probability(value: Any) -> float | str:
    if is_template(value):
        return str(value)
    number = _converted(value, float)
    if number is None or not 0.0 <= number <= 1.0:
        raise InvalidDeclaration(f"percentage must be a number between 0.0 and 1.0. Found {value!r}.")
    return float(number)


def _seed(value: Any) -> int | str | None:
    if value is None or is_template(value):
        return value if value is None else str(value)
    if isinstance(value, str) and value.strip().lower() in ("", "none"):
        return None  # an empty field of the trigger form
    number = _converted(value, int)
    if number is None:
        raise InvalidDeclaration(f"seed must be an integer or None. Found {value!r}.")
    return int(number)


def _converted(value: Any, kind: Callable[[Any], Any]) -> Any:
    """A number, also from text: that is what a rendered template is. None when it is no such number."""
    if isinstance(value, bool) or (kind is int and isinstance(value, float)):
        return None
    try:
        return kind(value)
    except (TypeError, ValueError):
        return None


def _derived_seed(run_key: str, call: int) -> int:
    return int.from_bytes(sha256(f"{run_key}\0{call}".encode()).digest()[:8], "big")
