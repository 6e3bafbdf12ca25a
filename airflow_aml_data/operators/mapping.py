"""Steps under ``.partial().expand()``: Airflow makes no operator of them at parse, so they are wired from here."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow.sdk import Param
from airflow.sdk.definitions._internal.expandinput import ListOfDictsExpandInput
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.mappedoperator import MappedOperator, OperatorPartial

from airflow_aml_data.outputs import wire


class StepPartial(OperatorPartial):
    """What ``partial`` of a step returns: expands to a mapped step that is wired as a plain one is."""

    def expand(self, **mapped_kwargs: Any) -> MappedOperator:
        if isinstance(params := mapped_kwargs.get("params"), Sequence):
            mapped_kwargs["params"] = [_as_params(each) for each in params]
        return _wired(super().expand(**mapped_kwargs))

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> MappedOperator:
        if isinstance(kwargs, Sequence):
            kwargs = [
                {**each, "params": _as_params(each["params"])}
                if isinstance(each, Mapping) and "params" in each
                else each
                for each in kwargs
            ]
        return _wired(super().expand_kwargs(kwargs, strict=strict))


def _as_params(params: Any) -> Any:
    """A task's ``params`` with values that Airflow does not take for new values of the DAG's params of the same names."""
    if not isinstance(params, Mapping):
        return params
    return {name: each if isinstance(each, Param) else Param(each) for name, each in params.items()}


def _wired(step: MappedOperator) -> MappedOperator:
    declared = step.operator_class.declared  # type: ignore[attr-defined]
    wire(step, [declared(step.task_id, values) for values in mapped_values(step)], indexed=_is_known(step))
    return step


def mapped_values(step: MappedOperator) -> Iterator[Mapping[str, Any]]:
    """The constructor arguments of each task of a mapped step, in the order of their map indexes.

    What is known only when the DAG runs is missing, or stands as the reference it is; it counts as one value.
    """
    expanded: Any = step.expand_input.value
    tasks: Iterable[Mapping[str, Any]]
    if isinstance(step.expand_input, ListOfDictsExpandInput):
        each_kwargs = [expanded] if isinstance(expanded, ResolveMixin) else expanded
        tasks = ({} if isinstance(each, ResolveMixin) else each for each in each_kwargs)
    else:
        tasks = (dict(zip(expanded, each, strict=True)) for each in itertools.product(*map(_values, expanded.values())))
    for each in tasks:
        yield {**step.partial_kwargs, **each}


def _values(expanded: Any) -> Sequence[Any]:
    if isinstance(expanded, ResolveMixin):
        return [expanded]
    return list(expanded.items()) if isinstance(expanded, Mapping) else expanded


def _is_known(step: MappedOperator) -> bool:
    """Whether it is known how many tasks the step has, and so which map index each of them gets."""
    expanded: Any = step.expand_input.value
    if isinstance(step.expand_input, ListOfDictsExpandInput):
        return not isinstance(expanded, ResolveMixin)
    return not any(isinstance(each, ResolveMixin) for each in expanded.values())
