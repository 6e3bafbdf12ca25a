"""Outputs that are read as tables: ``read_delimited_files``, ``read_parquet_files``."""

from __future__ import annotations

import pytest

from airflow_aml_data import Dataset, OutputFileDatasetConfig
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration

WRITE_CSV = """
    import os, sys
    os.makedirs(os.path.join(sys.argv[1], "sub"))
    for name, rows in {"1.csv": "1,x,007\\n2,y,1.50\\n", "sub/2.csv": "3,z,NA\\n"}.items():
        open(os.path.join(sys.argv[1], name), "w").write("n,t,v\\n" + rows)
    open(os.path.join(sys.argv[1], "log.txt"), "w").write("not a table")
"""
READ_TABLE = """
    from azureml.core import Run
    for name, dataset in Run.get_context().input_datasets.items():
        print(name, dataset.to_pandas_dataframe().to_dict("list"))
"""


@pytest.fixture
def table():
    return OutputFileDatasetConfig("o").as_upload().read_delimited_files(path_glob="**/*.csv")


@pytest.fixture
def written(steps, table):
    """The reference of the output that a step wrote, the table given as its argument."""
    return steps.run(WRITE_CSV, arguments=[table]).outputs[0]


def test_a_later_step_gets_the_table_with_its_values_as_they_stand(steps, table, written):
    read = table.keep_columns(["v", "n"]).dataset_of([written])

    steps.run(READ_TABLE, task_id="read", inputs=[read.as_named_input("t")])

    assert steps.lines[-1] == "t {'n': ['1', '2', '3'], 'v': ['007', '1.50', 'NA']}"


def test_its_parts_are_disjoint_and_together_whole(table, written):
    parts = [each.dataset_of([written]).to_pandas_dataframe() for each in table.random_split(0.5, seed=3)]

    assert sorted(row for part in parts for row in part["n"]) == ["1", "2", "3"]


def test_it_is_an_input_only_as_itself(table):
    assert table.as_input("t").mode == "direct"
    for mode in ("as_mount", "as_download"):
        with pytest.raises(InvalidDeclaration, match="Only FileDataset supports"):
            getattr(table.as_input("t"), mode)()


def test_a_glob_that_matches_no_file_is_an_error(steps, written):
    table = OutputFileDatasetConfig("o").read_parquet_files(path_glob="*.parquet")

    with pytest.raises(FilesNotFound, match="holds 3 files"):
        table.dataset_of([written]).to_pandas_dataframe()


def test_it_is_registered_as_a_table(steps, table):
    steps.run(WRITE_CSV, arguments=[table.drop_columns("t").register_on_complete("table")])

    frame = Dataset.get_by_name(steps.workspace, "table").to_pandas_dataframe()

    assert frame.to_dict("list") == {"n": ["1", "2", "3"], "v": ["007", "1.50", "NA"]}


def test_outputs_of_several_runs_are_one_table_and_folders_in_order(steps, table):
    references = [steps.run(WRITE_CSV, task_id=f"w{i}", arguments=[table]).outputs[0] for i in range(3)]

    assert len(table.dataset_of(references).to_pandas_dataframe()) == 9
    paths = OutputFileDatasetConfig("o").dataset_of(references).to_path()
    assert paths[:4] == ["/0/1.csv", "/0/log.txt", "/0/sub/2.csv", "/1/1.csv"]
