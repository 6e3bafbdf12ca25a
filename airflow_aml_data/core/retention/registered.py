"""What registered datasets read, looked up by output."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from airflow_aml_data.core.catalog import Candidate, RegisteredPlace
from airflow_aml_data.core.connect import ConnectedWorkspace

_WILDCARDS = "*?["


@dataclass(frozen=True, slots=True)
class RegisteredData:
    """Outputs and places that some version of some dataset reads.

    :param outputs: Output id to a dataset.
    :param addresses: Address of a folder or file to a dataset.
    :param locations: Datastore to the address of its root: one place may have several names.
    """

    outputs: Mapping[str, str]
    addresses: Mapping[str, str]
    locations: Mapping[str, str]
    _sorted: list[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_sorted", sorted(self.addresses))

    @classmethod
    def of(cls, workspace: ConnectedWorkspace, places: Iterable[RegisteredPlace]) -> RegisteredData:
        locations = workspace.locations()
        outputs: dict[str, str] = {}
        addresses: dict[str, str] = {}
        for each in places:
            if each.output_id:
                outputs.setdefault(each.output_id, each.dataset)
            elif each.datastore in locations:
                addresses.setdefault(_address(locations[each.datastore], _fixed(each.path)), each.dataset)
        return cls(outputs, addresses, locations)

    def by_what(self, output: Candidate) -> str:
        """A dataset that reads the output: it, a folder that contains it, or something in it. Empty when none does."""
        if found := self.outputs.get(output.id):
            return found
        if not self.addresses:
            return ""
        address = _address(self.locations[output.datastore], output.path)
        above = address
        while above:
            if found := self.addresses.get(above):
                return found
            above = above.rpartition("/")[0]
        position = bisect_left(self._sorted, f"{address}/")
        if position < len(self._sorted) and self._sorted[position].startswith(f"{address}/"):
            return self.addresses[self._sorted[position]]
        return ""


def _address(location: str, path: str) -> str:
    return f"{location}/{path}".rstrip("/")


def _fixed(path: str) -> str:
    """The folders of a path before its first wildcard."""
    if not any(each in path for each in _WILDCARDS):
        return path
    whole = path.split("/")
    first = next(i for i, part in enumerate(whole) if any(each in part for each in _WILDCARDS))
    return "/".join(whole[:first])
