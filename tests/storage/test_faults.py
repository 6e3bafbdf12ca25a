"""Steps on a store behind a faulty network: whole and right, or an error and nothing.

Each run downloads an input, copies it, and publishes the copy, while the proxy breaks some of the requests. What came of it is
read from the server itself. Over plain HTTP nothing but our own checks sees a changed byte.
"""

from __future__ import annotations

import itertools
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import xxhash

from airflow_aml_data import Dataset, Datastore, OutputFileDatasetConfig, Workspace
from airflow_aml_data.core.compute.local import Command
from airflow_aml_data.core.configuration import WorkspaceConfig
from airflow_aml_data.core.connect import ConnectedWorkspace
from airflow_aml_data.core.connections import ConnectionFields
from airflow_aml_data.core.identity import StepRun
from airflow_aml_data.core.manifest import Manifest
from airflow_aml_data.core.outputs import OutputReference
from airflow_aml_data.core.plan import StepDeclaration
from airflow_aml_data.core.step import StepResult, run_step
from airflow_aml_data.core.storage import retry
from airflow_aml_data.core.storage.base import DatastoreConfig, open_storage
from airflow_aml_data.errors import AmlDataError, StepFailed, StorageRefused
from tests.azurite import Azurite
from tests.storage.fault_proxy import FAULTS, Decide, Fault, FaultProxy, Request, fault_proxy, no_fault, random_faults
from tests.storage.stores import blob_store, content, names, put, with_key

pytestmark = pytest.mark.slow

TESTS, RUNS = 10, 50
FAULTY_SHARES = (0.01, 0.05, 0.2, 0.5)
"""Of the requests of a run."""

WEIGHTS = {each: 3 if each.endswith("_request") else 1 for each in FAULTS}
"""Fewer requests than answers have a body."""

MIB = 1 << 20
CONTAINER = "faulty"
NOT_CLEARED = "could not be removed"
"""In the log of a run that could not undo all it did; its next try does."""
STAYS = "stays"
"""In the log of a run that committed its output and could not remove what it needed for that."""


@pytest.fixture(scope="module")
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    azurite.create_container(CONTAINER)
    with fault_proxy(azurite.url) as running:
        yield running


def rates(share: float) -> dict[Fault, float]:
    """Every fault, together in this share of the requests."""
    return {fault: share * weight / sum(WEIGHTS.values()) for fault, weight in WEIGHTS.items()}


@dataclass(frozen=True)
class Case:
    """What one run has to do.

    :param files: What its input holds, by path.
    :param old: What is at the output's destination before; None: the destination is the run's own.
    """

    number: int
    files: Mapping[str, bytes]
    old: Mapping[str, bytes] | None

    @classmethod
    def make(cls, number: int) -> Case:
        chance = random.Random(number)
        sizes = [chance.choice([0, 1, 100, 10_000, 100_000]) for _ in range(chance.choice([1, 1, 2, 5, 12]))]
        if number % 10 == 0:
            sizes[0] = chance.randrange(5 * MIB, 12 * MIB)
        files = {f"{'deep/er/' * (n % 2)}{n}.bin": chance.randbytes(size) for n, size in enumerate(sizes)}
        old = {path: b"old " + path.encode() for path in [*files][::2]} | {"another.bin": b"another"}
        return cls(number, files, old if number % 3 == 0 else None)

    @property
    def task_id(self) -> str:
        return f"step_{self.number}"

    @property
    def place(self) -> str:
        return f"out/{self.number}"

    def declare(self, sources: Path, try_number: int) -> StepDeclaration:
        store = Datastore.get(Workspace(), "store")
        source = Dataset.File.from_files((store, f"in/{self.number}"))
        place = self.place if self.old is not None else f"{self.place}/{{run-id}}"
        output = OutputFileDatasetConfig("copy", destination=(store, place))
        return StepDeclaration(
            run=StepRun(dag_id="dag", run_id="r", task_id=self.task_id, try_number=try_number),
            command=["copy"],
            title="copy",
            source_directory=sources,
            inputs=[source.as_named_input("source").as_download()],
            outputs=[output.as_upload(overwrite=self.old is not None)],
        )


class CopyFiles:
    """Copies the input to the output in this process: starting an interpreter is not what is tested."""

    def run(self, command: Command, on_line: Callable[[str], None]) -> int:
        shutil.copytree(command.environment["source"], command.environment["copy"], dirs_exist_ok=True)
        return 0


class Fail:
    """A script that fails at once."""

    def run(self, command: Command, on_line: Callable[[str], None]) -> int:
        return 1


@dataclass
class Runs:
    """Runs of cases, one after the other, in one workspace.

    :param ends: How often each end was.
    :param left: Step runs whose log says that something of them stays on the store.
    """

    workspace: ConnectedWorkspace
    azurite: Azurite
    folder: Path
    log: pytest.LogCaptureFixture
    ends: Counter[str] = field(default_factory=Counter)
    left: set[str] = field(default_factory=set)

    def step(self, case: Case, compute: CopyFiles | Fail, try_number: int = 1) -> StepResult:
        self.log.clear()
        declared = case.declare(self.folder / "sources", try_number)
        try:
            return run_step(self.workspace, declared, compute, on_line=print, scratch_root=self.folder / "scratch")
        finally:
            if STAYS in self.log.text:
                self.left.add(declared.run.id)

    def run(self, case: Case, proxy: FaultProxy, decide: Decide) -> None:
        """Run a case with faults, and check what came of it."""
        proxy.decide = decide
        try:
            result = self.step(case, CopyFiles())
        except AmlDataError as error:
            proxy.decide = no_fault
            self.ends[type(error).__name__] += 1
            if NOT_CLEARED in self.log.text:
                self.ends["cleared by the next try"] += 1
                with pytest.raises(StepFailed):
                    self.step(case, Fail(), try_number=2)
            self.assert_nothing(case)
        else:
            self.ends["committed"] += 1
            self.assert_whole(case, result.outputs[0])

    def assert_whole(self, case: Case, reference: OutputReference) -> None:
        """The store holds what the input held, and of the old files those of other names; the manifest says so."""
        stored = content(self.azurite, CONTAINER, f"{case.place}/")
        where = reference.path
        assert stored == {f"{where}/{path}": each for path, each in {**(case.old or {}), **case.files}.items()}
        manifest = content(self.azurite, CONTAINER, reference.manifest.rpartition("/")[0])[reference.manifest]
        entries = Manifest.from_bytes(manifest)
        assert entries.digest == reference.manifest_digest
        said = {each.path: (each.size_bytes, each.checksum) for each in entries.entries}
        assert said == {path: (len(each), xxhash.xxh3_128_hexdigest(each)) for path, each in case.files.items()}
        (output,) = self.workspace.catalog.find_outputs(task_id=case.task_id)
        assert (output.state, output.manifest_digest) == ("committed", reference.manifest_digest)

    def assert_nothing(self, case: Case) -> None:
        """Nothing is committed, and what was at the destination before is as it was."""
        stored = content(self.azurite, CONTAINER, f"{case.place}/")
        assert stored == {f"{case.place}/{path}": each for path, each in (case.old or {}).items()}
        assert {each.state for each in self.workspace.catalog.find_outputs(task_id=case.task_id)} <= {"abandoned"}

    def leftovers(self) -> list[str]:
        """What lies in the reserved folder for these runs and is neither a manifest of a committed output nor announced."""
        ids = {each.step_run_id: each for each in self.workspace.catalog.find_outputs(limit=10_000)}
        manifests = {each.manifest_path for each in ids.values() if each.state == "committed"}
        return [
            path
            for path in names(self.azurite, CONTAINER, ".aml_data/")
            if path not in manifests and set(path.split("/")) & ids.keys() - self.left
        ]


@pytest.fixture
def runs(
    proxy: FaultProxy,
    azurite: Azurite,
    tmp_path: Path,
    empty_catalog: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Runs:
    """Runs in a workspace whose one datastore is reached through the proxy; nobody waits long before a retry."""
    monkeypatch.setattr(retry, "_FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(retry, "_LONGEST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(retry, "_ATTEMPTS", 3)
    shutil.copy(empty_catalog, tmp_path / "catalog.db")
    (tmp_path / "sources").mkdir()
    fields = ConnectionFields(conn_id="wasb_faulty", **with_key(azurite, proxy.url))
    config = {
        "datastores": {"store": blob_store(CONTAINER, "wasb_faulty")},
        "catalog_connection_string": f"sqlite:///{tmp_path / 'catalog.db'}",
    }
    workspace = replace(
        WorkspaceConfig.from_mapping("azureml_default", config, tmp_path), connections={"wasb_faulty": fields}
    )
    return Runs(ConnectedWorkspace(workspace), azurite, tmp_path, caplog)


@pytest.mark.parametrize("test", range(TESTS))
def test_every_run_ends_with_the_whole_output_or_with_an_error_and_nothing(
    test: int, runs: Runs, proxy: FaultProxy, azurite: Azurite
) -> None:
    before = proxy.injected
    for number in range(test * RUNS, (test + 1) * RUNS):
        case = Case.make(number)
        put(azurite, CONTAINER, {f"in/{number}/{path}": each for path, each in case.files.items()})
        put(azurite, CONTAINER, {f"{case.place}/{path}": each for path, each in (case.old or {}).items()})
        runs.run(case, proxy, random_faults(number, rates(FAULTY_SHARES[number % len(FAULTY_SHARES)])))

    faults = proxy.injected - before
    print(f"{RUNS} runs ended: {dict(runs.ends)}; faults: {dict(faults)}")
    assert runs.leftovers() == []
    assert list((runs.folder / "scratch").glob("dag*")) == []
    assert RUNS // 10 < runs.ends["committed"] < RUNS
    assert faults.keys() == set(FAULTS)


def test_a_retry_is_in_the_log_and_comes_when_the_server_said(
    runs: Runs, proxy: FaultProxy, azurite: Azurite, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(azurite, CONTAINER, {"asked/a.txt": b"a"})
    monkeypatch.setattr(proxy, "retry_after", "1")
    storage = runs.workspace.storage("store")
    before = len(proxy.requests)
    proxy.decide = lambda request: "throttled" if not request.times and "asked" in request.target else None

    assert [each.path for each in storage.list_files("asked")] == ["asked/a.txt"]

    first, second = proxy.requests[before : before + 2]
    assert (first.fault, second.fault) == ("throttled", None)
    assert second.at - first.at >= 1
    assert "429" in caplog.text
    assert "Attempt 2 follows in 1.0 s" in caplog.text


def test_reading_and_writing_wait_as_long_as_the_server_says_too(
    runs: Runs, proxy: FaultProxy, azurite: Azurite, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(azurite, CONTAINER, {"hurried/a.txt": b"a"})
    monkeypatch.setattr(proxy, "retry_after", "1")
    storage = runs.workspace.storage("store")
    (file,) = storage.list_files("hurried")
    (runs.folder / "b").write_bytes(b"b")

    def busy_for_half_a_second(request: Request) -> Fault | None:
        first = next(each for each in proxy.requests[before:] if each.target == request.target)
        return "throttled" if request.at - first.at < 0.5 else None

    before = len(proxy.requests)
    proxy.decide = busy_for_half_a_second
    assert storage.read_range(file, 0, 1) == b"a"
    storage.upload([(runs.folder / "b", "hurried/b.txt")], overwrite=True, progress=lambda *_: None)
    proxy.decide = no_fault

    assert content(azurite, CONTAINER, "hurried") == {"hurried/a.txt": b"a", "hurried/b.txt": b"b"}
    for path, method in (("hurried/a.txt", "GET"), ("hurried/b.txt", "PUT")):
        refused, *_, done = [each for each in proxy.requests[before:] if path in each.target and each.method == method]
        assert (refused.fault, done.fault) == ("throttled", None)
        assert done.at - refused.at >= 1
    assert "Attempt 2 follows in 1.0 s" in caplog.text


@pytest.mark.parametrize(
    "fault",
    ["busy", "reset_before", "reset_after", "half_request", "half_response", "corrupt_request", "corrupt_response"],
)
def test_a_deletion_ends_whole_and_exact_whatever_breaks_it(
    fault: Fault, runs: Runs, proxy: FaultProxy, azurite: Azurite, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"deleted/{fault}"
    put(azurite, CONTAINER, {f"{place}/{number}": b"old" for number in range(300)})
    storage = runs.workspace.storage("store")
    files = list(storage.list_files(place))
    changed = {f"{place}/{number}": b"new" for number in (7, 290)}
    put(azurite, CONTAINER, changed)
    before, batches = proxy.injected[fault], itertools.count()
    proxy.decide = lambda request: fault if "comp=batch" in request.target and next(batches) < 2 else None

    done = storage.delete_unchanged(files)

    proxy.decide = no_fault
    assert proxy.injected[fault] == before + 2
    assert content(azurite, CONTAINER, place) == changed
    assert {each.file.path for each in done if each.outcome != "deleted"} == changed.keys()
    assert {each.outcome for each in done} == {"changed", "deleted"}
    assert len(done) == len(files)
    assert not re.search("sig=[^*]|SharedKey", caplog.text)


@pytest.mark.parametrize("wrong", ["key", "container"])
def test_what_no_retry_can_cure_fails_with_the_first_request(
    wrong: str, runs: Runs, proxy: FaultProxy, azurite: Azurite, caplog: pytest.LogCaptureFixture
) -> None:
    key = "d3Jvbmc=" if wrong == "key" else ""
    fields = ConnectionFields(conn_id="wasb_wrong", **with_key(azurite, proxy.url, key=key))
    options = blob_store("missing" if wrong == "container" else CONTAINER, "wasb_wrong")
    del options["kind"]
    storage = open_storage(DatastoreConfig(name="wrong", kind="azure_blob", options=options, connection=fields))
    proxy.decide = no_fault
    before = len(proxy.requests)

    with pytest.raises(StorageRefused, match="wasb_wrong"):
        next(storage.list_files("anything"))

    assert len(proxy.requests) == before + 1
    assert "Attempt" not in caplog.text
