"""G51 to G56: samples and splits (semantics, section 7)."""

from __future__ import annotations

import json

import pytest

from airflow_aml_data import Dataset, Datastore, Workspace
from airflow_aml_data.errors import InvalidDeclaration

STORE = Datastore(Workspace(), "workspaceblobstore")
FILES = Dataset.File.from_files((STORE, "many"))
TABLE = Dataset.Tabular.from_delimited_files((STORE, "rows.csv"))


@pytest.fixture
def thousand(put):
    """``rows.csv`` with a thousand rows."""
    put({"rows.csv": "n\n" + "".join(f"{n}\n" for n in range(1000))})


@pytest.fixture
def many(put):
    """A folder of a hundred files."""
    put({f"many/{n:02}": "" for n in range(100)})


def rows(dataset) -> list[int]:
    return [*dataset.to_pandas_dataframe()["n"]]


def test_g51_a_split_of_a_thousand_records_is_about_800_to_200_disjoint_complete_and_in_order(thousand):
    first, second = map(rows, TABLE.random_split(0.8, seed=42))

    assert 760 <= len(first) <= 840
    assert sorted(first + second) == [*range(1000)]
    assert (first, second) == (sorted(first), sorted(second))


@pytest.mark.slow
def test_g52_the_same_call_in_another_process_gives_the_same_records(thousand, many, steps):
    script = """
        import json
        from azureml.core import Run
        inputs = Run.get_context().input_datasets
        print(json.dumps([inputs["files"].to_path(), [*inputs["table"].to_pandas_dataframe()["n"]]]))
    """
    files, table = FILES.random_split(0.8, seed=42)[0], TABLE.random_split(0.8, seed=42)[0]

    steps.run(script, inputs=[files.as_named_input("files"), table.as_named_input("table")])

    again = [FILES.random_split(0.8, seed=42)[0].to_path(), rows(TABLE.random_split(0.8, seed=42)[0])]
    assert json.loads(steps.lines[0]) == again


def test_g53_without_a_seed_the_parts_fit_together_and_stay_and_two_calls_differ(thousand):
    first, second = TABLE.random_split(0.5)
    other, _ = TABLE.random_split(0.5)

    assert sorted(rows(first) + rows(second)) == [*range(1000)]
    assert rows(first) == rows(first)
    assert rows(first) != rows(other)


@pytest.mark.parametrize("percentage", [-0.1, 1.1])
def test_g54_a_percentage_outside_0_to_1_is_refused_when_it_is_declared(percentage, refusal):
    for dataset in (FILES, TABLE):
        with pytest.raises(InvalidDeclaration) as refused:
            dataset.random_split(percentage)
        assert str(refused.value) == f"percentage must be a number between 0.0 and 1.0. Found {percentage}."
    assert "percentage must be a number between 0.0 and 1.0." in refusal(f"files.random_split({percentage})")


@pytest.mark.parametrize("probability", [1.5, -1])
def test_g55_a_probability_outside_0_to_1_is_refused_when_it_is_declared_unlike_in_v1(probability, refusal):
    for dataset in (FILES, TABLE):
        with pytest.raises(InvalidDeclaration, match=f"must be a number between 0.0 and 1.0. Found {probability}"):
            dataset.take_sample(probability)
    assert f"Found {probability}" in refusal(f"table.take_sample({probability})")


def test_g56_a_split_of_files_splits_their_list(many):
    first, second = (part.to_path() for part in FILES.random_split(0.5, 42))

    assert 30 <= len(first) <= 70
    assert sorted(first + second) == FILES.to_path()
