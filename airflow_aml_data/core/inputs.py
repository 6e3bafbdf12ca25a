"""``DatasetConsumptionConfig``: a dataset, or an output, as an input of a step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from airflow_aml_data.core.identity import check_name
from airflow_aml_data.errors import InvalidDeclaration


@dataclass(frozen=True)
class DatasetConsumptionConfig:
    """A dataset as an input of a step: its name and how the script gets at it.

    :param name: None: the step gives it one.
    :param mode: ``"mount"`` or ``"download"``: the script gets a local path; ``"direct"``: the dataset itself.
    :param path_on_compute: Where the files appear; relative: below the step's working directory. None: a scratch folder.

    Source: v1, ``azureml.data.dataset_consumption_config.DatasetConsumptionConfig``.
    """

    _MODES: ClassVar[tuple[str, ...]] = ("mount", "download", "direct")

    name: str | None
    dataset: Any
    mode: str = "direct"
    path_on_compute: str | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "input")
        mode = self.mode.lower() if isinstance(self.mode, str) else self.mode
        if mode not in self._MODES:
            raise InvalidDeclaration(f"Invalid mode {self.mode!r}. Mode can only be mount, download, or direct.")
        if getattr(self.dataset, "is_table", False) and mode != "direct":
            raise InvalidDeclaration(
                f"{type(self.dataset).__name__} does not support {mode}. Only FileDataset supports {mode}. Leave it "
                "direct and read it with Run.get_context().input_datasets[name].to_pandas_dataframe()."
            )
        object.__setattr__(self, "mode", mode)

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """The files are readable below a local path, without being copied first."""
        return replace(self, mode="mount", path_on_compute=path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """The files are copied to a local path before the script starts; the script may change the copies."""
        return replace(self, mode="download", path_on_compute=path_on_compute)
