"""What a step's mount shows. It holds credentials: it goes from process to process through an unnamed file, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.storage.base import DatastoreConfig, Placement, StoredFile


class OutputPlace(NamedTuple):
    """Where the files of an output are stored when they are closed.

    :param path: The output's folder on the datastore.
    :param backing: A folder on this machine for the files that are written.
    :param existing: What is stored there already.
    """

    datastore: str
    path: str
    backing: str
    existing: Sequence[StoredFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """The folders of a mount by name: one for each input, with where its files are, and one for each output.

    :param datastores: Those of the files, by name, each with its connection.
    :param inputs: Name to datastore and files.
    """

    datastores: Mapping[str, DatastoreConfig] = field(repr=False)
    inputs: Mapping[str, Sequence[tuple[str, Sequence[Placement]]]]
    outputs: Mapping[str, OutputPlace]

    def to_bytes(self) -> bytes:
        stores = {name: asdict(each.portable()) for name, each in self.datastores.items()}
        return json.dumps([stores, self.inputs, self.outputs]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Specification:
        stores, inputs, outputs = json.loads(content)
        return cls(
            datastores={name: _config(**each) for name, each in stores.items()},
            inputs={
                name: [
                    (store, [Placement(StoredFile(*file), target) for file, target in files]) for store, files in groups
                ]
                for name, groups in inputs.items()
            },
            outputs={
                name: OutputPlace(store, path, backing, [StoredFile(*each) for each in existing])
                for name, (store, path, backing, existing) in outputs.items()
            },
        )


def _config(connection: Mapping[str, object] | None, **fields: object) -> DatastoreConfig:
    return DatastoreConfig(connection=ConnectionFields(**connection) if connection else None, **fields)  # type: ignore[arg-type]
