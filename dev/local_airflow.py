"""A real Airflow on this machine: API server, scheduler with LocalExecutor, DAG processor, on SQLite.

As a context manager for the demo, the tests and the bench; as a command it leaves Airflow running::

    python -m dev.local_airflow up --home .airflow --dags dags
    python -m dev.local_airflow down --home .airflow

Each component is a process of its own, in a session of its own, that listens on the loopback interface only.
"""

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.error import URLError

import psutil

from dev.airflow_api import AirflowApi

START_SECONDS = 120
TAIL_LINES = 40

COMMANDS = {
    "api-server": ["api-server"],
    # The log server always listens on every interface; the API server reads the files itself.
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}

KEPT_PREFIXES = ("AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW__AML_DATA__")
"""What this shell may tell the local Airflow. The rest is another installation's: its database, secrets."""

MARK = "LOCAL_AIRFLOW_MARK"
"""Environment variable by which a process that left its component's session is still known."""


class LocalAirflowError(RuntimeError):
    """The local Airflow cannot start or did not stay up; the text ends with the component's log."""


@dataclass(slots=True)
class _Record:
    """What is written down in ``home``, so that another process can find and stop this Airflow."""

    url: str
    user: str
    password: str
    mark: str
    leaders: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Component to process id and time of creation: a process id alone may belong to somebody else by now."""

    @classmethod
    def read(cls, home: Path) -> Self | None:
        file = _record_file(home)
        return cls(**json.loads(file.read_text())) if file.exists() else None

    def write(self, home: Path) -> None:
        file = _record_file(home)
        file.touch(mode=0o600)
        file.write_text(json.dumps(asdict(self), indent=2))

    def is_running(self) -> bool:
        """Tell whether every component is there."""
        return all(_started_then(pid, created) for pid, created in self.leaders.values())

    def processes(self) -> set[psutil.Process]:
        """Give everything that this Airflow started and that still runs.

        Three ways to know them, for none is enough. A task has its own process group, but in the session of
        the scheduler; a BashOperator's command has its own session, but its parent may still be there; and
        when that has gone, the environment tells (not that of Airflow's processes: titles overwrite it).
        """
        sessions = {
            pid for pid, created in self.leaders.values() if not psutil.pid_exists(pid) or _started_then(pid, created)
        }
        found: set[psutil.Process] = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError, PermissionError):
                if os.getsid(process.pid) in sessions or process.environ().get(MARK) == self.mark:
                    found |= {process, *process.children(recursive=True)}
        return {process for process in found if _is_alive(process)}

    def is_task(self, process: psutil.Process) -> bool:
        """Tell whether a process is a task: the leader of another group in the scheduler's session."""
        scheduler, _ = self.leaders.get("scheduler", (0, 0))
        with suppress(ProcessLookupError):
            session, group = os.getsid(process.pid), os.getpgid(process.pid)
            return bool(session == scheduler != group == process.pid)
        return False


class LocalAirflow(AirflowApi):
    """Run Airflow for as long as the ``with`` block lasts; nothing of it outlives the block.

    Running tasks are ended too, whatever ends the block: its end, an exception, Ctrl-C or SIGTERM.

    :param home: Airflow's home: database, logs, generated configuration. Kept afterwards.
    :param dags_folder: The folder that holds the DAG files.
    :param more_dags_folders: Further folders with DAG files.
    :param env: Environment variables for all components, and so for the tasks.
    :param parallelism: How many tasks may run at once.
    :param triggerer: Whether to run a triggerer, which only deferred tasks need.
    :param port: Where to serve the UI and the API; None, or a port that is taken: any free one.
    """

    def __init__(
        self,
        *,
        home: Path,
        dags_folder: Path,
        more_dags_folders: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
        parallelism: int = 4,
        triggerer: bool = False,
        port: int | None = None,
    ) -> None:
        self.port = _free_port(port)
        super().__init__(
            f"http://127.0.0.1:{self.port}",
            user="admin",
            password=secrets.token_urlsafe(nbytes=9),
            dags_folders=[dags_folder, *more_dags_folders],
        )
        self.home = home.absolute()
        self.env = dict(env or {})
        self.parallelism = parallelism
        self.components = [name for name in COMMANDS if name != "triggerer" or triggerer]
        self._record = _Record(self.url, self.user, self.password, mark=secrets.token_hex(8))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment: dict[str, str] = {}
        self._block = ExitStack()

    @property
    def admin_password(self) -> str:
        return self.password

    def __enter__(self) -> Self:
        with ExitStack() as block:
            block.enter_context(_sigterm_raises())
            self.start()
            block.callback(self.stop)
            self._block = block.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._block.close()

    def start(self) -> None:
        """Migrate the database, start the components and return when all are healthy.

        :raises LocalAirflowError: one of them ended or is late, or ``home`` is in use.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        running = _Record.read(self.home)
        if running and running.processes():
            raise LocalAirflowError(
                f"An Airflow runs in {self.home} already, at {running.url}. "
                f"Stop it first: python -m dev.local_airflow down --home {self.home}"
            )
        self._passwords_file.touch(mode=0o600)
        self._passwords_file.write_text(json.dumps({"admin": self.password, "viewer": self.password}))
        with ExitStack() as unless_healthy:
            unless_healthy.callback(self.stop)
            self._environment = self._made_environment()
            migration = self._spawn("db", "db", "migrate")
            if migration.wait():
                raise LocalAirflowError(f"airflow db migrate failed.\n{self._log_tail('db')}")
            del self._record.leaders["db"]
            for component in self.components:
                self.start_component(component)
            self._wait_until_healthy()
            unless_healthy.pop_all()

    def stop(self) -> None:
        """End everything that was started. Does nothing when nothing runs."""
        _stop(self._record)
        for process in self._processes.values():
            process.wait()
        _record_file(self.home).unlink(missing_ok=True)

    def start_component(self, component: str) -> None:
        """Start a component, for example one that was killed. It is not waited for."""
        self._processes[component] = self._spawn(component, *COMMANDS[component])

    def kill_component(self, component: str) -> None:
        """End a component with signal 9, as when its machine goes down: with it end its own processes, and running tasks."""
        process = self._processes.pop(component)
        while found := [each for each in self.processes() if _is_in_session(each, process.pid)]:
            for each in found:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()

    def check(self) -> None:
        """:raises LocalAirflowError: a component has ended."""
        for component, process in self._processes.items():
            if process.poll() is not None:
                raise LocalAirflowError(
                    f"airflow {component} ended with exit code {process.returncode}.\n" + self._log_tail(component)
                )

    def processes(self) -> set[psutil.Process]:
        """Give everything that was started and still runs: components, tasks, what the tasks started."""
        return self._record.processes()

    def log_file(self, component: str) -> Path:
        """Give the file with a component's standard output and error."""
        return self.home / "components" / f"{component}.log"

    def _spawn(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        log_file = self.log_file(name)
        log_file.parent.mkdir(exist_ok=True)
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self._environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._record.leaders[name] = process.pid, psutil.Process(process.pid).create_time()
        self._record.write(self.home)
        return process

    def _wait_until_healthy(self) -> None:
        names = {"metadatabase": "db", "scheduler": "scheduler", "dag_processor": "dag-processor"}
        if "triggerer" in self.components:
            names["triggerer"] = "triggerer"
        deadline = time.monotonic() + START_SECONDS
        missing = "api-server"
        while missing:
            self.check()
            if time.monotonic() > deadline:
                raise LocalAirflowError(
                    f"airflow {missing} is not healthy after {START_SECONDS} s.\n{self._log_tail(missing)}"
                )
            time.sleep(0.2)
            with suppress(URLError, ConnectionError):
                health = self.health()
                missing = next((names[key] for key in names if health.get(key) != "healthy"), "")

    def _log_tail(self, component: str) -> str:
        lines = self.log_file(component).read_text(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    @property
    def _passwords_file(self) -> Path:
        return self.home / "passwords.json"

    def _made_environment(self) -> dict[str, str]:
        """What all components have, also one that is started later: secrets among it are drawn."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("AIRFLOW_") or name.startswith(KEPT_PREFIXES)
        }
        options = {
            f"AIRFLOW__{section.upper()}__{option.upper()}": str(value)
            for section, values in self._options().items()
            for option, value in values.items()
        }
        loopback = ",".join(filter(None, [inherited.get("no_proxy"), "127.0.0.1,localhost"]))
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}",
            "NO_PROXY": loopback,
            "no_proxy": loopback,
            "AIRFLOW_HOME": str(self.home),
            MARK: self._record.mark,
            **options,
            **self.env,
        }

    def _options(self) -> dict[str, dict[str, object]]:
        bundles = [
            {
                "name": f"dags-{number}",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(folder)},
            }
            for number, folder in enumerate(self.dags_folders)
        ]
        return {
            "core": {
                "dags_folder": self.dags_folders[0],
                "executor": "LocalExecutor",
                "execution_api_server_url": f"{self.url}/execution/",
                "load_examples": False,
                "parallelism": self.parallelism,
                "simple_auth_manager_passwords_file": self._passwords_file,
                "simple_auth_manager_users": "admin:admin,viewer:viewer",
                "test_connection": "Enabled",
            },
            "database": {"sql_alchemy_conn": f"sqlite:///{self.home / 'airflow.db'}"},
            "api": {
                "host": "127.0.0.1",
                "port": self.port,
                "base_url": self.url,
                "secret_key": secrets.token_hex(16),
                "workers": 1,
            },
            "api_auth": {"jwt_secret": secrets.token_hex(32)},
            "dag_processor": {
                "dag_bundle_config_list": json.dumps(bundles),
                "bundle_refresh_check_interval": 1,
                "refresh_interval": 2,  # seconds until a new file is seen; by default 300
            },
            "scheduler": {
                "scheduler_idle_sleep_time": 0.1,  # seconds between two tasks; by default 1
                "trigger_timeout_check_interval": 2,
            },
            "workers": {"min_heartbeat_interval": 1},  # seconds until a failure shows; by default 5
            "logging": {
                "base_log_folder": self.home / "logs",
                "worker_log_server_port": _free_port(),  # where nobody serves logs: not another Airflow's
                "trigger_log_server_port": _free_port(),
            },
            "usage_data_collection": {"enabled": False},
        }


def up(home: Path, dags_folder: Path, *, port: int, out: IO[str]) -> None:
    """Start Airflow and leave it running, or find it running, and say where it is."""
    record = _Record.read(home)
    if record is None or not record.is_running():
        if record is not None:
            _stop(record)
        print("Starting Airflow ...", file=out, flush=True)
        airflow = LocalAirflow(home=home, dags_folder=dags_folder, triggerer=True, port=port)
        with _sigterm_raises():
            airflow.start()
        record = airflow._record
    print(f"Airflow runs at {record.url}  user: {record.user}  password: {record.password}", file=out)


def down(home: Path, *, out: IO[str]) -> None:
    """Stop what :func:`up` started; do nothing when it does not run."""
    record = _Record.read(home)
    if record is None:
        print("No Airflow runs.", file=out)
        return
    _stop(record)
    _record_file(home).unlink()
    print(f"Airflow at {record.url} is stopped.", file=out)


def _stop(record: _Record) -> None:
    """End all processes of an Airflow, and return when they have ended.

    First the tasks, while the rest is there to be told how they ended; without an API server they would try
    to reach it for a minute. Then the rest is asked to end. What does not is made to: as a rule a worker of
    LocalExecutor, which ignores SIGTERM and in 3.3.2 now and then misses the scheduler's word to end.
    """
    known: set[psutil.Process] = set()
    for number, chosen, patience_seconds in (
        (signal.SIGTERM, record.is_task, 6),
        (signal.SIGTERM, _is_alive, 3),
        (signal.SIGKILL, _is_alive, 6),
    ):
        asked: set[psutil.Process] = set()
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            # Again each time: a component may start a process while it is told to end.
            known = {process for process in known | record.processes() if _is_alive(process)}
            waited_for = {process for process in known if chosen(process)}
            if not waited_for:
                break
            for process in waited_for - asked:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
            asked |= waited_for
            time.sleep(0.1)
        if asked and chosen == record.is_task:
            time.sleep(0.5)  # for their supervisors to report how they ended
    if known:
        raise LocalAirflowError(f"These processes cannot be ended: {sorted(process.pid for process in known)}.")


def _started_then(pid: int, created: float) -> bool:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return _is_alive(process) and abs(process.create_time() - created) < 1
    return False


def _is_in_session(process: psutil.Process, session: int) -> bool:
    with suppress(ProcessLookupError):
        return os.getsid(process.pid) == session
    return False


def _is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def _record_file(home: Path) -> Path:
    return home / "local_airflow.json"


def _free_port(preferred: int | None = None) -> int:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the API server will
        with suppress(OSError):
            server.bind(("127.0.0.1", preferred or 0))
            return int(server.getsockname()[1])
    return _free_port()


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does. Outside the main thread no handler can be set."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    try:
        previous = signal.signal(signal.SIGTERM, leave)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.local_airflow", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--home", type=Path, default=Path(".airflow"), help="Airflow's home")
    parser.add_argument("--dags", type=Path, default=Path("dags"), help="folder with the DAG files")
    parser.add_argument("--port", type=int, default=8080, help="another one is used when it is taken")
    arguments = parser.parse_args()
    if arguments.command == "up":
        up(arguments.home, arguments.dags, port=arguments.port, out=sys.stdout)
    else:
        down(arguments.home, out=sys.stdout)


if __name__ == "__main__":
    main()
