"""The catalog's database: its address, its transactions, its migrations, its errors in readable words.

Connections are opened for a call and closed after it. So a forked child inherits none, a thousand
waiting steps hold none, and a connection the server dropped overnight is never used again.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from airflow_aml_data.core.catalog.schema import HEAD, VERSION_TABLE
from airflow_aml_data.errors import AmlDataError, InvalidConfiguration, MissingExtra, StorageError

log = logging.getLogger(__name__)

_WAIT_SECONDS = 30
"""How long a transaction waits for another one: many steps end at once, none holds the lock for long."""

ROWS_AT_ONCE = 1000
"""Of a streamed answer, or of one statement that writes: a million rows do not fit into memory."""
_CONNECT_SECONDS = 10
_DRIVERS = {"sqlite": ("", "pysqlite"), "postgresql": ("", "psycopg2", "psycopg")}
_WRITES = "aml_writes"
_UNUSABLE_FILE = (
    "SQLITE_NOTADB",
    "SQLITE_CORRUPT",
    "SQLITE_READONLY",
    "SQLITE_CANTOPEN",
    "SQLITE_PERM",
    "SQLITE_AUTH",
)
_NOT_ALLOWED = "42501"  # PostgreSQL's insufficient_privilege


class Database:
    """A SQLite file or a PostgreSQL database at the newest schema.

    Making one does no I/O. The first transaction creates the file and its folder, and migrates; processes
    that start at the same time wait for the one that does.

    :raises InvalidConfiguration: for an address no catalog can have.
    """

    def __init__(self, url: str) -> None:
        self._url = _checked(url)
        self._engine: Engine | None = None

    @property
    def place(self) -> str:
        """The address for people: no password, no options."""
        if self._url.get_backend_name() == "sqlite":
            return str(self._url.database)
        shown = {key: value for key, value in self._url.query.items() if key in ("host", "port")}
        return self._url.set(drivername="postgresql", query=shown).render_as_string(hide_password=True)

    @property
    def may_exist(self) -> bool:
        """False for a SQLite file that is not there; nobody has written anything then."""
        return self._url.get_backend_name() != "sqlite" or Path(str(self._url.database)).exists()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads: one consistent view, waits for no writer."""
        with self._readable_errors(), self._ready_engine().begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all of it happens, or nothing. On SQLite one at a time."""
        with self._readable_errors(), _begin_writing(self._ready_engine()) as connection:
            yield connection

    def describe(self) -> str:
        """Connect, and return one sentence: kind of database, where, schema version."""
        with self.reading() as connection:
            if connection.dialect.name == "sqlite":
                kind, version = "SQLite", sqlite3.sqlite_version
            else:
                kind = "PostgreSQL"
                version = str(connection.scalar(text("SHOW server_version"))).split()[0]
            return f"{kind} {version} at {self.place}, schema version {_schema_version(connection)}."

    def close(self) -> None:
        """Forget the engine; the next call starts afresh."""
        if self._engine is not None:
            self._engine.dispose()
        self._engine = None

    def _ready_engine(self) -> Engine:
        if self._engine is None:
            engine = _make_engine(self._url)
            _bring_to_head(engine, self.place)
            self._engine = engine
        return self._engine

    @contextmanager
    def _readable_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            readable = self._readable(error)
            if readable is None:
                raise
            raise readable from error

    def _readable(self, error: DBAPIError) -> AmlDataError | None:
        """The error in the user's terms, or None for one that only a bug of ours can cause."""
        words = " ".join(str(error.orig).split()).rstrip(".")
        if isinstance(self._url.password, str) and self._url.password:
            words = words.replace(self._url.password, "***")
        if str(getattr(error.orig, "sqlite_errorname", "")).startswith(_UNUSABLE_FILE):
            return InvalidConfiguration(
                f"The catalog {self.place} cannot be used: {words}. It must be a SQLite file this user may "
                "write, in a folder this user may write; name another in the catalog's address."
            )
        if _NOT_ALLOWED in (getattr(error.orig, "pgcode", None), getattr(error.orig, "sqlstate", None)):
            return InvalidConfiguration(
                f"The catalog {self.place} refuses its user: {words}. "
                "The user must be allowed to create, read and write tables there."
            )
        if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
            return StorageError(f"The catalog {self.place} did not answer as it should: {words}.")
        return None


def lock_names(connection: Connection, names: Iterable[str]) -> None:
    """Hold each name until the transaction ends; whoever wants one of them waits.

    Nothing to do on SQLite, which has one writer at a time.
    """
    if connection.dialect.name != "postgresql":
        return
    keys = {_lock_key(name) for name in names}
    for key in sorted(keys):  # everyone in the same order: no deadlock
        connection.execute(select(func.pg_advisory_xact_lock(key)))


def _lock_key(name: str) -> int:
    return int.from_bytes(sha256(f"aml\0{name}".encode()).digest()[:8], "big", signed=True)


def _checked(address: str) -> URL:
    if address.startswith("postgres://"):  # what Airflow's connections are written with
        address = "postgresql" + address.removeprefix("postgres")
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = None
    if url is None:  # outside the except: the cause's text may hold the password
        raise InvalidConfiguration(
            "The catalog's address cannot be read. Write sqlite:////absolute/path/catalog.db or "
            "postgresql://user:password@host:5432/database."
        )
    backend, _, driver = url.drivername.partition("+")
    if driver not in _DRIVERS.get(backend, ()):
        raise InvalidConfiguration(
            f"A catalog cannot be kept in {url.drivername!r}. Allowed: sqlite, postgresql, "
            "postgresql+psycopg2, postgresql+psycopg."
        )
    if backend == "sqlite" and not Path(url.database or "").is_absolute():
        raise InvalidConfiguration(
            f"A SQLite catalog needs the absolute path of a file, not {url.database or 'memory'!r}: every "
            "step is a process of its own. Write sqlite:////absolute/path/catalog.db (four slashes)."
        )
    if "@" in (url.host or ""):
        raise InvalidConfiguration("The catalog's address has two '@': write one in a password as %40.")
    # Bare "postgresql" is psycopg2 here, as it is in Airflow; SQLAlchemy 2.1 would take psycopg 3.
    return url.set(drivername="postgresql+psycopg2") if url.drivername == "postgresql" else url


def _make_engine(url: URL) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    wanted = {"timeout": _WAIT_SECONDS} if sqlite else {"connect_timeout": _CONNECT_SECONDS}
    options: dict[str, Any] = {} if sqlite else {"isolation_level": "READ COMMITTED"}
    try:
        engine = create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,  # an error's text must not carry users' data
            connect_args={key: value for key, value in wanted.items() if key not in url.query},
            **options,
        )
    except ModuleNotFoundError as error:
        raise MissingExtra("A catalog in PostgreSQL", "postgres") from error
    if sqlite:
        _make_folder(Path(str(url.database)).parent)
        event.listen(engine, "connect", _open_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidConfiguration(
            f"The catalog's folder {str(folder)!r} cannot be made: {error.strerror}. "
            "Name another in the catalog's address."
        ) from error


def _open_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin_sqlite
    connection.execute("PRAGMA foreign_keys = ON")
    give_up_at = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")  # the file keeps it: a look, but for the first
            return
        except sqlite3.OperationalError as error:
            # Two who switch at once: SQLite refuses one of them without waiting.
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    # A plain BEGIN that writes later cannot wait for another writer: SQLite would refuse it at once.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _begin_writing(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_SECONDS}s'"))
        yield connection


def _schema_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608  a constant
    return version


def _bring_to_head(engine: Engine, place: str) -> None:
    with engine.connect() as connection:
        if _schema_version(connection) == HEAD:
            return
    with _begin_writing(engine) as connection:
        lock_names(connection, ["migration"])
        found = _schema_version(connection)  # another process may have been faster
        if found != HEAD:
            _migrate(connection, found, place)


def _migrate(connection: Connection, found: str | None, place: str) -> None:
    # Imported here: of all the processes that use a catalog, one in its life needs it.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise InvalidConfiguration(
            f"The catalog {place} has schema version {found!r}, which this airflow-aml-data does not know "
            f"(it knows up to {HEAD!r}): a newer one has used it. Install that version here too."
        )
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)  # a task's log needs one line of it, ours
    command.upgrade(config, HEAD)
    log.info("Catalog %s: schema migrated from %s to %s.", place, found or "nothing", HEAD)
