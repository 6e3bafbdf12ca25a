"""``MLTable`` files as the source of a dataset. Source: Microsoft's published schema."""

from __future__ import annotations

import pytest

from airflow_aml_data import DataPath, Dataset, OutputFileDatasetConfig
from airflow_aml_data.core.definition import StorePath, WebPath
from airflow_aml_data.core.expressions import Comparison
from airflow_aml_data.core.operations import DropColumns, Filter, KeepColumns, Skip, Take
from airflow_aml_data.core.selection import Selection
from airflow_aml_data.errors import FilesNotFound, InvalidDeclaration, InvalidPath

HEAD = """
$schema: https://azuremlschemas.azureedge.net/latest/MLTable.schema.json
type: mltable
"""
READ = "transformations:\n  - read_delimited:\n      delimiter: ','\n"
CSV = {f"tables/sub/{name}.csv": f"a,b\n{name},x\n{name}0,y\n" for name in "12"}


def table(paths, transformations=READ):
    return HEAD + "paths:\n" + "".join(f"  - {each}\n" for each in paths) + transformations


@pytest.fixture
def described(put, datastore):
    """A function that puts an MLTable with some data, and gives the definition it stands for."""

    def describe(content):
        put({"tables/MLTable": content, **CSV})
        made = Dataset.Tabular.from_mltable((datastore, "tables"))
        return made.definition(datastore.workspace.connect())

    return describe


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "file: ./sub/1.csv",
            "pattern: ./sub/[1].csv",
            "pattern: sub/1*.csv",
            "file: ../tables/sub/1.csv",
            "file: azureml://datastores/workspaceblobstore/paths/tables/sub/1.csv",
        ],
    )
    def test_are_relative_to_the_folder_or_addresses(self, put, datastore, path):
        put({"tables/MLTable": table([path]), **CSV})
        for where in ("tables", "tables/", "tables/MLTable", DataPath(datastore, "tables")):
            made = Dataset.Tabular.from_mltable(where if isinstance(where, DataPath) else (datastore, where))
            assert made.to_pandas_dataframe()["a"].tolist() == [1, 10]

    def test_several_are_read_in_their_order(self, described, datastore):
        known = described(table(["file: ./sub/2.csv", "folder: ./sub"]))
        assert known.sources == (
            StorePath("workspaceblobstore", "tables/sub/2.csv"),
            StorePath("workspaceblobstore", "tables/sub"),
        )
        read = Dataset.Tabular.from_mltable((datastore, "tables")).to_pandas_dataframe()
        assert read["a"].tolist() == [2, 20, 1, 10, 2, 20]

    def test_of_a_table_on_the_web_too(self, workspace, web):
        web.answers |= {"/t/MLTable": table(["file: ./a.csv"]).encode(), "/t/a.csv": b"a\n5\n"}
        for url in (f"{web.url}/t", f"{web.url}/t/", f"{web.url}/t/MLTable"):
            made = Dataset.Tabular.from_mltable(url)
            assert made.to_pandas_dataframe()["a"].tolist() == [5]
            assert made.definition(workspace.connect()).sources == (WebPath(f"{web.url}/t/a.csv"),)

    def test_of_a_registered_folder_and_a_registered_output(self, steps, put, datastore):
        put({"tables/MLTable": table(["pattern: sub/*.csv"]), **CSV})
        Dataset.File.from_files((datastore, "tables")).register(steps.workspace, "described")
        assert Dataset.Tabular.from_mltable("azureml:described:1").to_pandas_dataframe()["a"].tolist() == [1, 10, 2, 20]

        written = table(["pattern: data/*.csv", "file: data/a.csv", "folder: data"])
        script = (
            "import os, pathlib, sys\n"
            "folder = pathlib.Path(sys.argv[1]); (folder / 'data').mkdir(parents=True)\n"
            "(folder / 'data' / 'a.csv').write_text('a\\n7\\n')\n"
            f"(folder / 'MLTable').write_text({written!r})\n"
        )
        steps.run(script, arguments=[OutputFileDatasetConfig("o").as_upload().register_on_complete("made")])
        made = Dataset.Tabular.from_mltable("azureml:made@latest")
        assert made.to_pandas_dataframe()["a"].tolist() == [7, 7, 7]
        assert len(list(made.definition(steps.workspace.connect()).outputs)) == 3

    @pytest.mark.parametrize("path", ["folder: ./", "folder: .", "pattern: ./*", "pattern: '**/*'", "file: MLTable"])
    def test_that_take_in_the_description_itself_are_refused(self, described, path):
        with pytest.raises(InvalidDeclaration, match="takes in the MLTable itself"):
            described(table([path]))

    @pytest.mark.parametrize(
        ("path", "error"),
        [
            ("file: ../../x.csv", InvalidPath),
            ("file: /data/x.csv", InvalidDeclaration),
            ("file: file:///data/x.csv", InvalidDeclaration),
            ("file: wasbs://c@a.host/x.csv", InvalidDeclaration),
            ("folder: 'C:\\data'", InvalidDeclaration),
            ("glob: ./x", InvalidDeclaration),
            ("file: 5", InvalidDeclaration),
        ],
    )
    def test_elsewhere_are_refused(self, described, path, error):
        with pytest.raises(error, match="The MLTable in 'tables' on 'workspaceblobstore' cannot be used"):
            described(table([path]))


class TestTransformations:
    def test_become_operations_in_their_order(self, described):
        known = described(
            table(
                ["file: sub/1.csv"],
                READ
                + """
  - keep_columns: [a, b]
  - drop_columns: b
  - filter: 'col("a") > 1'
  - skip: 10
  - take: 200
  - take_random_sample: {probability: 0.5, seed: 1394}
traits: {timestamp_column: a}
""",
            )
        )
        assert known.operations == (
            KeepColumns(("a", "b")),
            DropColumns(("b",)),
            Filter(Comparison(field="a", operator=">", value=1)),
            Skip(10),
            Take(200),
            Selection(probability=0.5, seed=1394),
        )
        assert known.timestamp == "a"

    def test_a_sample_without_a_seed_is_the_same_at_each_read(self, described):
        content = table(["file: sub/1.csv"], READ + "  - take_random_sample: {probability: 0.5}\n")
        assert described(content) == described(content)
        assert described(content + "\n").operations != described(content).operations

    def test_reading_options(self, described):
        known = described(
            table(
                ["file: sub/1.csv"],
                """
transformations:
  - read_delimited:
      delimiter: ';'
      header: no_header
      encoding: latin1
      empty_as_string: true
      support_multi_line: true
      infer_column_types: false
      include_path_column: true
      path_column: Path
      partition_size: 20971520
""",
            )
        )
        form = known.format
        assert (form.separator, form.header, form.encoding) == (";", False, "latin1")
        assert (form.empty_as_string, form.support_multi_line, form.infer_column_types) == (True, True, False)
        assert known.include_path is True

    @pytest.mark.parametrize("read", ["  - read_parquet\n", "  - read_parquet:\n", "  - read_parquet: {}\n"])
    def test_parquet(self, described, read):
        assert described(table(["file: sub/1.csv"], f"transformations:\n{read}")).format.kind == "parquet"

    @pytest.mark.parametrize(
        "written",
        ["{day:yyyy/MM/dd}", "'{day:yyyy/MM/dd}'", "{partition_format: '{day:yyyy/MM/dd}'}"],
    )
    def test_columns_from_a_partition_format_survive_an_earlier_choice_of_columns(self, described, written):
        more = f"  - keep_columns: a\n  - extract_columns_from_partition_format: {written}\n  - drop_columns: [b]\n"
        known = described(table(["file: sub/1.csv"], READ + more))
        assert known.partition_format == "{day:yyyy/MM/dd}*"
        assert known.operations == (KeepColumns(("a", "day")), DropColumns(("b",)))

    def test_calls_on_the_dataset_come_after(self, put, datastore):
        put({"tables/MLTable": table(["folder: sub"], READ + "  - take: 3\n"), **CSV})
        made = Dataset.Tabular.from_mltable((datastore, "tables"))
        assert made.skip(1).to_pandas_dataframe()["a"].tolist() == [10, 2]

    @pytest.mark.slow
    def test_a_step_reads_it(self, steps, put, datastore):
        put({"tables/MLTable": table(["folder: sub"]), **CSV})
        made = Dataset.Tabular.from_mltable((datastore, "tables")).as_named_input("t")
        script = (
            "from airflow_aml_data import Run\n"
            "assert len(Run.get_context().input_datasets['t'].to_pandas_dataframe()) == 4\n"
        )
        steps.run(script, inputs=[made])


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "found None"),
            ("just text", "found 'just text'"),
            ("a: [", "not YAML"),
            (b"\xff\xfe\xff", "not YAML"),
            ("!!python/object/apply:os.system ['true']", "not YAML"),
            ("metadata: 2024-13-45\n", "not YAML"),
            ("type: csv\n", "allowed: 'mltable'"),
            (HEAD + "colour: red\n", "unknown keys 'colour'"),
            (HEAD + "paths: []\n", "paths is a list that is not empty"),
            (table([]), "paths is a list"),
            (HEAD + "paths: [{file: a, folder: b}]\n" + READ, "One name"),
            (table(["file: a"], ""), "transformations is a list"),
            (table(["file: a"], "transformations: [take: 5]\n"), "'take' comes before files are read"),
            (table(["file: a"], "transformations: [read_delta_lake: {version_as_of: 1}]\n"), "Allowed: read_delimited"),
            (table(["file: a"], READ + "  - read_parquet\n"), "second transformation that reads"),
            (table(["file: a"], READ + "      colour: red\n"), "unknown keys 'colour'"),
            (table(["file: a"], READ + "      header: some\n"), "allowed: all_files_same_headers"),
            (table(["file: a"], READ + "      path_column: Where\n"), "allowed: 'Path'"),
            (table(["file: a"], READ + "      encoding: cp1252\n"), "Invalid encoding 'cp1252'"),
            (table(["file: a"], READ + "  - shuffle: 5\n"), "Unknown transformation 'shuffle'"),
            (table(["file: a"], READ + "  - take: -1\n"), "count must be a positive integer"),
            (table(["file: a"], READ + "  - take: {a: 1}\n"), "count must be a positive integer"),
            (table(["file: a"], READ + "  - keep_columns: 5\n"), "a name or a list of names"),
            (table(["file: a"], READ + "  - filter: 'a +'\n"), "cannot be read"),
            (table(["file: a"], READ + "  - filter: 5\n"), "A filter is text"),
            (table(["file: a"], READ + "  - take_random_sample: 0.5\n"), "keys and values"),
            (table(["file: a"], READ + "  - take_random_sample: {seed: 1}\n"), "probability"),
            (table(["file: a"], READ + "  - take_random_sample: {probability: 2}\n"), "between 0.0 and 1.0"),
            (table(["file: a"], READ + "  - extract_columns_from_partition_format: abc\n"), "at least one"),
            (table(["file: a"], READ + "  - extract_columns_from_partition_format: 5\n"), "must be text"),
            (table(["file: a"], READ + "  - extract_columns_from_partition_format: '{a}'\n" * 2), "twice"),
            (
                table(["file: a"], READ + "  - convert_column_types: [{columns: a, column_type: date}]\n"),
                "allowed: int",
            ),
            (
                table(
                    ["file: a"],
                    READ + "  - filter: a > 1\n  - convert_column_types: [{columns: a, column_type: int}]\n",
                ),
                "after a filter",
            ),
            (
                table(
                    ["file: a"],
                    READ + "  - convert_column_types: [{columns: a, column_type: {boolean: {true_values: ['yes']}}}]\n",
                ),
                "unknown keys 'true_values'",
            ),
            (
                table(
                    ["file: a"],
                    READ + "  - convert_column_types: [{columns: a, column_type: {datetime: {formats: 5}}}]\n",
                ),
                "formats is a name",
            ),
            (table(["file: a"], READ + "traits: {timestamp_column: 5}\n"), "timestamp_column is a name"),
            (table(["file: a"], READ + "traits: {index_columns: a}\n"), "unknown keys 'index_columns'"),
            (HEAD + "paths: &a [*a, *a]\n" + READ, "YAML alias"),
        ],
    )
    def test_when_it_is_read_with_what_is_allowed(self, described, content, message):
        with pytest.raises(InvalidDeclaration, match="The MLTable in 'tables'") as error:
            described(content)
        assert message in str(error.value)
        assert len(str(error.value)) < 1000

    def test_a_folder_without_one(self, put, datastore):
        put(CSV)
        with pytest.raises(FilesNotFound, match="No MLTable is in 'tables' on 'workspaceblobstore'"):
            Dataset.Tabular.from_mltable((datastore, "tables")).to_pandas_dataframe()

    def test_several_folders(self, datastore):
        with pytest.raises(InvalidDeclaration, match="one folder, found 2"):
            Dataset.Tabular.from_mltable([(datastore, "a"), (datastore, "b")])

    def test_nothing_is_read_when_declared(self):
        assert Dataset.Tabular.from_mltable("https://nowhere.invalid/t").take(1).operations == (Take(1),)
