"""A process that dies at any point, and the try after it."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import pytest

from airflow_aml_data import Dataset
from airflow_aml_data.core import claims
from airflow_aml_data.core import step as step_module
from airflow_aml_data.core.catalog import Catalog
from airflow_aml_data.core.compute.local import LocalCompute
from airflow_aml_data.core.outputs import OutputFileDatasetConfig
from airflow_aml_data.core.storage.local import LocalStorage
from airflow_aml_data.core.tabular import cut
from airflow_aml_data.errors import (
    OutputConflict,
    StepFailed,
)
from tests.core.steps import WRITE, in_child, kill_myself

UPLOADED = OutputFileDatasetConfig("out").as_upload()
FIXED = OutputFileDatasetConfig("out", destination=("workspaceblobstore", "fixed/place"))
OUTPUTS = {
    "exclusive": UPLOADED,
    "fixed": FIXED.as_upload(),
    "overwrite": FIXED.as_upload(overwrite=True),
    "mount": FIXED,
}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """The machine's folder for temporary files, empty."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


class TestKilled:
    """kill -9 of the process that runs the step, then the next try of the same task."""

    POINTS = ("begun", "in the script", "published half", "published", "manifest", "committing", "committed")

    @staticmethod
    def arrange(point: str) -> None:
        if point == "begun":
            step_module.stage_step = lambda *_: kill_myself()
        elif point == "published half":
            link, rename, done = os.link, Path.rename, []

            def one_link(*args):
                link(*args)
                done.append(args) or len(done) < 2 or kill_myself()

            os.link = one_link
            Path.rename = lambda *args: (rename(*args), kill_myself())
        elif point == "published":
            LocalStorage.write_bytes = lambda *_: kill_myself()
        elif point == "manifest":
            step_module.commit_step.__globals__["_record"] = lambda *_: kill_myself()
        elif point == "committing":
            Catalog.commit_outputs = lambda *_, **__: kill_myself()
        elif point == "committed":
            LocalStorage.drop_staging = lambda *_: kill_myself()

    @pytest.mark.parametrize(
        ("name", "point"),
        [
            each for each in itertools.product(OUTPUTS, POINTS) if each != ("mount", "committed")
        ],  # nothing is left to do
    )
    @pytest.mark.slow
    def test_the_next_try_succeeds_and_clears_what_the_dead_one_left(self, steps, put, name, point):
        output = OUTPUTS[name]
        if output.overwrite:
            put({"fixed/place/a.txt": "old"})

        def first_try() -> None:
            self.arrange(point)
            script = WRITE
            if point == "in the script":
                script += f"    import time; os.kill({os.getpid()}, 9); time.sleep(60)"
            steps.run(script, arguments=[output, "a.txt", "b.txt"], compute=LocalCompute(grace_seconds=0.1))

        assert in_child(first_try) == -signal.SIGKILL
        committed = point == "committed"
        if committed and not output.is_exclusive and not output.overwrite:
            with pytest.raises(OutputConflict):  # the catalog knows it as committed: it is not this try's to remove
                steps.write("a.txt", "b.txt", output=output, try_number=2)
            assert steps.stored() == {"fixed/place/a.txt": "new a.txt", "fixed/place/b.txt": "new b.txt"}
            assert steps.leftovers() == []
            return

        made = steps.write("a.txt", "b.txt", output=output, try_number=2)

        expected = {f"{made.path}/a.txt": "new a.txt", f"{made.path}/b.txt": "new b.txt"}
        stored = steps.stored()
        assert expected.items() <= stored.items()
        if not committed:
            assert stored == expected
            assert steps.states() == ["abandoned", "committed"]
        assert steps.leftovers() == []
        assert made.to_path() == ["/a.txt", "/b.txt"]

    @pytest.mark.parametrize("output", [FIXED.as_upload(), FIXED.as_upload(overwrite=True)], ids=["fixed", "overwrite"])
    def test_two_tries_killed_one_after_the_other(self, steps, put, output, monkeypatch):
        """The second dies before it has cleared away what the first left."""
        if output.overwrite:
            put({"fixed/place/a.txt": "old"})

        def killed_at_commit() -> None:
            self.arrange("committing")
            steps.write("a.txt", output=output)

        def killed_at_clearing() -> None:
            claims.discard = lambda *_: kill_myself()
            steps.write("a.txt", output=output, try_number=2)

        assert in_child(killed_at_commit) == in_child(killed_at_clearing) == -signal.SIGKILL

        with pytest.raises(StepFailed):
            steps.run("raise SystemExit(1)", arguments=[output], try_number=3)

        assert steps.stored() == ({"fixed/place/a.txt": "old"} if output.overwrite else {})
        assert steps.leftovers() == []

    def test_one_that_dies_while_it_makes_its_inputs(self, steps, put, elsewhere):
        """Both parts of a split are made at once: neither may be taken for whole."""
        put({"t.csv": "n\n" + "".join(f"{number}\n" for number in range(300_000))})
        table = Dataset.Tabular.from_delimited_files((steps.workspace.get_default_datastore(), "t.csv"))
        parts = [each.to_csv_files() for each in table.random_split(0.5, seed=1)]
        inputs = [each.as_named_input(name).as_download() for each, name in zip(parts, "ab", strict=True)]
        count = "import os; print(*(sum(1 for _ in open(os.environ[name] + '/part-00000')) - 1 for name in 'ab'))"

        def first_try() -> None:
            copied, done = cut.in_codec, []
            cut.in_codec = lambda *args: kill_myself() if len(done) == 1 else done.append(1) or copied(*args)
            steps.run(count, inputs=inputs)

        assert in_child(first_try) == -signal.SIGKILL

        steps.run(count, inputs=inputs, try_number=2)

        assert sum(map(int, steps.lines[-1].split())) == 300_000
        assert steps.leftovers() == []
        assert list(elsewhere.iterdir()) == []

    def test_a_script_that_dies_while_it_reads_a_table(self, steps, put, elsewhere):
        """Links that stay would keep the data of deleted files on the disk."""
        put({"t.csv": "n\n1\n"})
        table = Dataset.Tabular.from_delimited_files((steps.workspace.get_default_datastore(), "t.csv"))
        script = """
            import os
            from azureml.core import Run
            from airflow_aml_data.core import tabular
            tabular.read_table = lambda *args, **options: os.kill(os.getpid(), 9)
            Run.get_context().input_datasets["t"].to_pandas_dataframe()
        """

        with pytest.raises(StepFailed, match="signal 9"):
            steps.run(script, inputs=[table.as_named_input("t")])

        assert list(elsewhere.iterdir()) == []
        assert steps.leftovers() == []

    def test_one_that_dies_while_it_publishes_its_run_files(self, steps):
        script = WRITE + "    os.makedirs('outputs'); open('outputs/model', 'w').write('m')"

        def first_try() -> None:
            self.arrange("committing")
            steps.run(script, arguments=[UPLOADED])

        assert in_child(first_try) == -signal.SIGKILL
        result = steps.run(script, arguments=[UPLOADED], try_number=2)

        assert [each.name for each in result.outputs] == ["out", "run_files"]
        assert sorted(steps.stored()) == sorted(f"{out.path}{path}" for out in result.outputs for path in out.to_path())
        assert steps.leftovers() == []

    @pytest.mark.slow
    def test_what_a_dead_step_left_elsewhere_is_not_touched(self, steps):
        good = steps.write("keep.txt", output=FIXED.as_upload(), task_id="other")

        def dies() -> None:
            self.arrange("committing")
            steps.write("b.txt", output=FIXED.as_upload())

        assert in_child(dies) == -signal.SIGKILL
        steps.write("b.txt", output=FIXED.as_upload(), try_number=2)
        assert good.to_path() == ["/keep.txt"]
