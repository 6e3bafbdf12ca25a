"""Datasets of files: paths, laziness, samples and splits, registration."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_aml_data import DataPath, Dataset, Datastore, Workspace
from airflow_aml_data.core.definition import Definition
from airflow_aml_data.core.factory import from_definition
from airflow_aml_data.core.sampling import Sampling
from airflow_aml_data.core.selection import select
from airflow_aml_data.errors import (
    FilesExist,
    FilesNotFound,
    InvalidDeclaration,
)

NOWHERE = Datastore(Workspace("no_such_connection"), "store")
FILES = Dataset.File.from_files((NOWHERE, "data"))
TABLE = Dataset.Tabular.from_delimited_files((NOWHERE, "data.csv"))


def files(datastore, *paths):
    return Dataset.File.from_files([(datastore, each) for each in paths])


class TestPaths:
    @pytest.fixture(autouse=True)
    def animals(self, put):
        names = [
            "dog/1.jpg",
            "dog/2.jpg",
            "dog/UP.JPG",
            "dog/.x.jpg",
            "dog/sub/3.jpg",
            "cat/4.jpg",
            "br[1]/x.jpg",
            "zero",
        ]
        put({name: "" if name == "zero" else name for name in names})

    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("dog/1.jpg", ["/1.jpg"]),
            ("/dog/1.jpg", ["/1.jpg"]),
            ("dog/", ["/.x.jpg", "/1.jpg", "/2.jpg", "/UP.JPG", "/sub/3.jpg"]),
            ("dog/*.jpg", ["/.x.jpg", "/1.jpg", "/2.jpg"]),
            ("*/*.jpg", ["/br[1]/x.jpg", "/cat/4.jpg", "/dog/.x.jpg", "/dog/1.jpg", "/dog/2.jpg"]),
            ("dog/**/3.jpg", ["/sub/3.jpg"]),
            ("br[1]/x.jpg", ["/x.jpg"]),
            ("zero", ["/zero"]),
        ],
    )
    def test_g57_v1_table(self, datastore, path, found):
        """Semantics section 4, G57."""
        assert files(datastore, path).to_path() == found
        assert Dataset.File.from_files(DataPath(datastore, path)).to_path() == found

    @pytest.mark.parametrize("path", ["missing", "missing/", "dog/*.png", "**", "DOG/1.jpg"])
    def test_g58_no_match_is_an_error_on_use(self, datastore, path):
        """G58."""
        made = files(datastore, path)
        with pytest.raises(FilesNotFound, match="The requested stream was not found"):
            made.to_path()

    def test_a_list_keeps_order_duplicates_and_whole_paths(self, datastore):
        made = files(datastore, "dog/2.jpg", "cat", "dog/2.jpg", "dog/1.jpg")
        assert made.to_path() == ["/dog/2.jpg", "/cat/4.jpg", "/dog/2.jpg", "/dog/1.jpg"]

    def test_one_missing_path_of_a_list_is_an_error_too(self, datastore):
        with pytest.raises(FilesNotFound, match="'missing'"):
            files(datastore, "dog", "missing").to_path()

    def test_download_refuses_collisions_before_anything_is_written(self, datastore, tmp_path):
        (tmp_path / "to").mkdir()
        (tmp_path / "to" / "2.jpg").write_text("mine")
        with pytest.raises(FilesExist, match=r"2\.jpg"):
            files(datastore, "dog").download(tmp_path / "to")
        assert [each.name for each in (tmp_path / "to").iterdir()] == ["2.jpg"]
        files(datastore, "dog").download(tmp_path / "to", overwrite=True)
        assert (tmp_path / "to" / "2.jpg").read_text() == "dog/2.jpg"


def test_files_of_two_datastores_with_one_path_do_not_mix(workspace, monkeypatch, tmp_path):
    from airflow_aml_data.core import connections

    stores = {name: {"kind": "local", "root": str(tmp_path / name)} for name in ("one", "two", "three")}
    monkeypatch.setattr(connections, "source", lambda _: {"datastores": stores})
    for name, path in (("one", "x/a"), ("two", "x/a"), ("three", "x")):
        (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / path).write_text(name)
    ws = Workspace("c")
    for stored in (["one", "two"], ["one", "three"], ["three", "one"]):
        made = Dataset.File.from_files([(Datastore(ws, each), "x") for each in stored])
        with pytest.raises(FilesExist, match="two datasets"):
            made.download(tmp_path / "to")
        assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    "path",
    [
        None,
        [],
        "local/file",
        "file:///x",
        "s3://b/x",
        5,
        NOWHERE,
        [NOWHERE],
        [None],
        (NOWHERE,),
        (NOWHERE, 5),
        ("store", "x"),
        (NOWHERE, "x", "y"),
    ],
)
def test_paths_of_another_kind_are_refused_at_once(path):
    for make in (Dataset.File.from_files, Dataset.Tabular.from_delimited_files, Dataset.Tabular.from_parquet_files):
        with pytest.raises(InvalidDeclaration, match="Invalid"):
            make(path)


def test_one_dataset_cannot_span_workspaces():
    with pytest.raises(InvalidDeclaration, match="span workspaces"):
        Dataset.File.from_files([(NOWHERE, "a"), (Datastore(Workspace("other"), "s"), "a")])


def test_declaring_reads_nothing_and_changes_no_source():
    """G59: the workspace of these does not exist, and nobody notices."""
    made = [
        FILES.take_sample(0.5, 2),
        *FILES.random_split(0.5, 1),
        FILES.as_mount(),
        FILES.as_download("/d"),
        FILES.as_named_input("x").as_mount(),
        TABLE.random_split(0.5)[0].as_named_input("t"),
        Dataset.get_by_name(NOWHERE.workspace, "n", version=3),
    ]
    assert len({repr(each) for each in made}) == len(made)
    assert "0x" not in "".join(map(repr, made))
    assert FILES.operations == TABLE.operations == ()


@settings(deadline=None)
@given(count=st.integers(0, 200), p=st.floats(0, 1), q=st.floats(0, 1), seed=st.integers() | st.none())
def test_a_split_is_disjoint_complete_and_ordered(count, p, q, seed):
    """G51, G53, G56; G52 is in the tests of the selections."""
    items = list(range(count))
    first, second = (
        select(items, [each.selection(None) for each in part.operations]) for part in FILES.random_split(p, seed)
    )
    assert sorted(first + second) == items
    assert first == sorted(first)
    assert second == sorted(second)
    if seed is not None:
        assert select(items, [FILES.take_sample(p, seed).operations[0].selection(None)]) == first
        if q <= p:
            assert set(select(items, [FILES.take_sample(q, seed).operations[0].selection(None)])) <= set(first)
    if p in (0.0, 1.0):
        assert first == (items if p else [])


def test_a_drawn_seed_stays_what_it_is_and_two_calls_differ():
    one, two = FILES.take_sample(0.5).operations[0], FILES.take_sample(0.5).operations[0]
    assert one.selection(None) == one.selection(None)
    assert one.selection(None) != two.selection(None)
    assert one != two
    assert FILES.take_sample(0.5, 7) == FILES.take_sample(0.5, 7)
    assert FILES.take_sample(0.5, 0).operations[0].selection("run").seed == 0


def test_inside_a_run_a_drawn_seed_depends_on_the_run_alone():
    """Every step of the run is a process of its own and must see the same parts."""
    a, b = (each.operations[0] for each in FILES.random_split(0.5))
    assert a.selection("run1").seed == b.selection("run1").seed
    assert a.selection("run1") != a.selection("run2")
    script = (
        "from airflow_aml_data.core.sampling import Sampling\n"
        "print([Sampling(probability=0.5, seed=None).selection('run').seed for _ in range(3)])"
    )
    said = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(said) == 1
    assert len(set(eval(said.pop()))) == 3


def test_templates_are_accepted_and_settled_later():
    made = Sampling(probability="{{ params.p }}", seed="{{ params.s }}")
    with pytest.raises(InvalidDeclaration, match="template"):
        made.selection("run")
    assert Sampling(probability="0.5", seed="7").selection(None) == Sampling(probability=0.5, seed=7).selection(None)
    assert Sampling(probability=0.5, seed=" None ").seed is None


@pytest.mark.parametrize("bad", [-0.1, 1.1, -1, 1.5, "x", None, float("nan"), True])
def test_probabilities_outside_are_refused_at_once(bad):
    """G54, G55."""
    for call in (FILES.take_sample, FILES.random_split, TABLE.random_split):
        with pytest.raises(InvalidDeclaration, match=r"between 0\.0 and 1\.0"):
            call(bad)


@pytest.mark.parametrize("bad", [1.5, "x", True, [1]])
def test_seeds_are_integers(bad):
    with pytest.raises(InvalidDeclaration, match="seed must be an integer"):
        FILES.take_sample(0.5, bad)


def test_a_definition_survives_json(steps, put):
    put({"a/1": "1"})
    definition = files(steps.workspace.get_default_datastore(), "a").take_sample(0.25, 9).definition(steps.connected)
    again = Definition.from_json(definition.to_json())
    assert again == definition
    assert from_definition(steps.workspace, again.to_json()).definition(steps.connected) == definition
    with pytest.raises(InvalidDeclaration, match="version"):
        Definition.from_json({"definition_version": 99})
