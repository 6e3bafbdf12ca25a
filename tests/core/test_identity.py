"""Names, paths and step run ids."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_aml_data.core.identity import StepRun, check_name, check_relative_path
from airflow_aml_data.errors import InvalidName, InvalidPath

TEXT = st.text(min_size=1, max_size=300)


@pytest.mark.parametrize("name", ["good", "_x", "a1", "A_B_9", "x" * 200])
def test_names_v1_accepts(name):
    """G01."""
    assert check_name(name, "output") == name


@pytest.mark.parametrize("name", ["bad name!", "1abc", "a-b", "a.b", "é", "{run-id}", "", "a\n", "a/b", "..", None, 5])
def test_names_v1_refuses_are_named_in_the_error(name):
    """G02, G03, G06."""
    with pytest.raises(InvalidName, match=re.escape(f'Invalid input name "{name}"')):
        check_name(name, "input")


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        (None, ""),
        ("", ""),
        ("/", ""),
        (".", ""),
        ("/a/b", "a/b"),
        ("a//b/", "a/b"),
        ("./a/./b", "a/b"),
        ("a b", "a b"),
        ("...", "..."),
    ],
)
def test_paths_are_normalised(path, clean):
    assert check_relative_path(path) == clean


@pytest.mark.parametrize(
    "path", ["..", "a/..", "a/../b", "/../x", "a\0b", ".aml_data", "./.aml_data/x", "//.aml_data", 5, b"a"]
)
def test_paths_that_leave_the_root_or_enter_the_reserved_folder_are_refused(path):
    with pytest.raises(InvalidPath):
        check_relative_path(path)


@given(dag=TEXT, run=TEXT, task=TEXT, number=st.integers(-1, 10**6), tries=st.integers(1, 10**6))
def test_a_step_run_id_is_one_safe_segment(dag, run, task, number, tries):
    made = StepRun(dag_id=dag, run_id=run, task_id=task, map_index=number, try_number=tries).id

    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", made)
    assert len(made) <= 240
    assert check_relative_path(made) == made


def test_step_runs_that_look_alike_have_different_ids():
    base = {"dag_id": "d", "run_id": "manual__2026-01-01T00:00:00+00:00", "task_id": "t"}
    runs = [
        StepRun(**base),
        StepRun(**base | {"run_id": "manual__2026-01-01T00:00:00-00:00"}),
        StepRun(**base | {"dag_id": "D"}),
        StepRun(**base | {"task_id": "t.map0"}),
        StepRun(**base, map_index=0),
        StepRun(**base, map_index=1),
        StepRun(**base, try_number=2),
        StepRun(**base, unique="a"),
        StepRun(**base | {"task_id": "x" * 60 + "1"}),
        StepRun(**base | {"task_id": "x" * 60 + "2"}),
    ]
    assert len({each.id for each in runs}) == len(runs)
    assert StepRun(**base).id == runs[0].id
