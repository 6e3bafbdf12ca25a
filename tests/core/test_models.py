"""Models: registered file datasets under v1's name for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_aml_data import Dataset
from airflow_aml_data.core.models import Model
from airflow_aml_data.errors import DatasetNotFound, FilesExist, FilesNotFound, InvalidPath, NotOffered


@pytest.mark.slow
def test_a_model_of_the_runs_files_is_a_registered_dataset(steps, tmp_path, monkeypatch):
    script = """
        import os
        from azureml.core import Model, Run
        run = Run.get_context()
        os.makedirs("outputs/deep")
        open("outputs/model.pkl", "w").write("first"); open("outputs/deep/x", "w").write("x")
        made = run.register_model(
            model_name="iris", model_path="outputs/model.pkl", tags={"area": "flowers"}, description="d",
            model_framework="ScikitLearn", properties={"p": 1})
        print(made.name, made.id, made.version, made.tags, made.description)
        print(run.parent.register_model("iris", "./outputs/").version)
        print(open(Model.get_model_path("iris", 1)).read())
        run.upload_file("by_name", "outputs/model.pkl")
        print(run.register_model("by_name").version)
        try:
            run.register_model("iris", "outputs/none")
        except FileNotFoundError as error:
            print(error)
    """
    steps.run(script)

    tags = {"p": "1", "area": "flowers", "model_framework": "ScikitLearn"}
    assert [each for each in steps.lines if not each.startswith("file")] == [
        f"iris iris:1 1 {tags} d",
        "2",
        "first",
        "1",
        "The run has no file 'outputs/none' to register as model 'iris'; it has: by_name, outputs/deep/x, outputs/model.pkl. "
        "Write it to ./outputs, or upload it with run.upload_file().",
    ]
    monkeypatch.chdir(tmp_path)
    whole = Model(steps.workspace, "iris")
    assert (whole.version, Path(whole.download()).name) == (2, "outputs")
    assert (tmp_path / "outputs" / "deep" / "x").read_text() == "x"
    with pytest.raises(FilesExist):
        whole.download()
    assert Path(Model(steps.workspace, id="iris:1").download("there")).read_text() == "first"
    assert Path(Model.get_model_path("iris")) == tmp_path / "azureml-models" / "iris" / "2" / "outputs"
    assert Dataset.get_by_name(steps.workspace, "iris", 1).to_path() == ["/model.pkl"]


def test_a_local_model_is_registered_by_hand(steps, tmp_path):
    (tmp_path / "model.pkl").write_text("m")
    for version in (1, 2):
        made = Model.register(workspace=steps.workspace, model_path=tmp_path / "model.pkl", model_name="mine")
        assert (made.name, made.version) == ("mine", version)
    with pytest.raises(FilesNotFound, match="no file at"):
        Model.register(steps.workspace, str(tmp_path / "none"), "mine")
    with pytest.raises(DatasetNotFound, match='"other"'):
        Model(steps.workspace, "other")


def test_models_are_listed_with_their_versions_and_apart_from_other_datasets(steps, put, tmp_path):
    put({"data/1": "one"})
    Dataset.File.from_files((steps.workspace.get_default_datastore(), "data")).register(steps.workspace, "data")
    (tmp_path / "model.pkl").write_text("m")
    for name in ("b", "a", "b"):
        Model.register(steps.workspace, tmp_path / "model.pkl", name)

    assert [each.id for each in Model.list(steps.workspace)] == ["a:1", "b:2", "b:1"]
    assert [each.id for each in Model.list(steps.workspace, name="b", latest=True)] == ["b:2"]
    assert Model.list(steps.workspace, name="data") == []
    with pytest.raises(NotOffered, match="run_id"):
        Model.list(steps.workspace, run_id="x")


def test_datasets_of_any_kind_stand_beside_models(steps, put, tmp_path):
    put({"t.csv": "a\n1\n"})
    table = Dataset.Tabular.from_delimited_files((steps.workspace.get_default_datastore(), "t.csv"))
    table.to_csv_files().register(steps.workspace, "files of a table")
    (tmp_path / "m").write_text("m")
    Model.register(steps.workspace, tmp_path / "m", "m")

    assert [each.id for each in Model.list(steps.workspace)] == ["m:1"]
    folder = Model(steps.workspace, "files of a table").download(tmp_path / "got")
    assert Path(folder, "part-00000").read_text() == "a\n1\n"


def test_a_name_that_leads_elsewhere_is_no_place_for_a_model(steps, put, tmp_path, monkeypatch):
    put({"d/1": "", "d/2": ""})
    Dataset.File.from_files((steps.workspace.get_default_datastore(), "d")).register(steps.workspace, "../../up")
    (tmp_path / "work" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work" / "inner")

    with pytest.raises(InvalidPath):
        Model.get_model_path("../../up")
    with pytest.raises(InvalidPath):
        Model.register(steps.workspace, __file__, "../../up")
    assert sorted(tmp_path.joinpath("work").rglob("*")) == [tmp_path / "work" / "inner"]


def test_version_0_is_not_the_latest(steps, tmp_path):
    (tmp_path / "m").write_text("m")
    Model.register(steps.workspace, tmp_path / "m", "m")

    with pytest.raises(DatasetNotFound):
        Model(steps.workspace, "m", version=0)
