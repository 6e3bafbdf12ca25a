"""Addresses, migrations, and errors that say what to do and keep the password."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from airflow_aml_data.core import catalog as package
from airflow_aml_data.core.catalog import Catalog, NewDatasetVersion
from airflow_aml_data.core.catalog.database import _checked, _make_engine
from airflow_aml_data.core.catalog.schema import HEAD, VERSION_TABLE, metadata
from airflow_aml_data.errors import InvalidConfiguration, StorageError
from tests.postgres import PASSWORD

MIGRATIONS = Path(package.__file__).parent / "migrations"


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = _make_engine(_checked(url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def unprivileged() -> Iterator[None]:
    """File permissions hold inside, also when the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder_for_everyone() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def definitions(connection: Connection) -> set[tuple[str, ...]]:
    """What Alembic's comparison does not look at: conditions of indices, collations."""
    if connection.dialect.name == "sqlite":
        query = "SELECT name, replace(sql, '\"', '') FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        query = (
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' "
            "UNION ALL SELECT table_name || '.' || column_name, collation_name "
            "FROM information_schema.columns WHERE table_schema = 'public'"
        )
    found = {tuple(row) for row in connection.execute(text(query))}
    return {row for row in found if not row[0].startswith(VERSION_TABLE)}


def test_the_migrations_make_the_tables_the_code_describes(make_catalog_url):
    migrated, described = make_catalog_url(), make_catalog_url()
    for url in (migrated, described):
        Catalog(url).check()
    with connected(described) as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        expected = definitions(connection)

    with connected(migrated) as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert definitions(connection) == expected


def test_datasets_of_the_first_schema_keep_their_rows_and_get_an_id(catalog_url):
    with connected(catalog_url) as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001_initial")
        connection.execute(text("INSERT INTO aml_datasets VALUES ('sales', 1, '2026-01-31 12:00:00')"))
        connection.execute(
            text(
                "INSERT INTO aml_dataset_versions (name, version, definition, description, tags, created_at) "
                """VALUES ('sales', 1, '{"paths": ["a"]}', '', '{}', '2026-01-31 12:00:00')"""
            )
        )

    catalog = Catalog(catalog_url)

    old = catalog.get_dataset("sales")
    assert (old.definition, old.content_digest) == ({"paths": ["a"]}, None)
    assert catalog.get_dataset_by_id(old.dataset_id) == old
    catalog.unregister_all_versions("sales")
    again = NewDatasetVersion(name="sales", definition={"paths": ["a"]})
    assert catalog.register_dataset(again, create_new_version=False).dataset_id == old.dataset_id


def test_the_code_is_written_for_the_last_migration():
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_check_says_what_kind_of_database_it_is_and_at_which_schema(catalog_url):
    catalog = Catalog(catalog_url)

    first, second = catalog.check(), Catalog(catalog_url).check()

    assert first == second
    assert first.startswith(("SQLite 3.", "PostgreSQL 18"))
    assert first.endswith(f"schema version {HEAD}.")


def test_a_closed_catalog_opens_again(fresh_catalog):
    fresh_catalog.register_dataset(NewDatasetVersion(name="a", definition={}), create_new_version=True)
    fresh_catalog.close()
    fresh_catalog.close()

    assert fresh_catalog.get_dataset("a").version == 1


def test_a_catalog_a_newer_release_has_migrated_is_refused(catalog_url):
    Catalog(catalog_url).check()
    with connected(catalog_url) as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0999_future'"))

    with pytest.raises(InvalidConfiguration, match=r"'0999_future'.*a newer one has used it"):
        Catalog(catalog_url).check()


@pytest.mark.slow
def test_alembic_is_imported_by_the_process_that_migrates_and_airflow_by_none(tmp_path):
    script = (
        "import sys; from airflow_aml_data.core.catalog import Catalog; Catalog(sys.argv[1]).check();"
        "print(*{name.partition('.')[0] for name in sys.modules} & {'alembic', 'airflow'})"
    )

    def imports() -> str:
        command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/catalog.db"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert (imports(), imports()) == ("alembic", "")


def test_making_a_catalog_touches_nothing(tmp_path):
    Catalog(f"sqlite:///{tmp_path}/folder/catalog.db")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "cannot be read"),
        ("catalog.db", "cannot be read"),
        ("postgresql://aml:s3cret@host:port/db", "cannot be read"),
        ("mysql://aml:s3cret@host/db", "cannot be kept in 'mysql'. Allowed: sqlite, postgresql"),
        ("postgresql+asyncpg://aml:s3cret@host/db", "cannot be kept in 'postgresql\\+asyncpg'"),
        ("postgresql://aml:s3cret@s3cret@host/db", "write one in a password as %40"),
        ("sqlite://", "needs the absolute path of a file, not 'memory'"),
        ("sqlite:///catalog.db", "needs the absolute path of a file, not 'catalog.db'"),
    ],
)
def test_an_address_no_catalog_can_have_is_refused_without_its_password(url, words):
    with pytest.raises(InvalidConfiguration, match=words) as refusal:
        Catalog(url)

    assert "s3cret" not in "".join(traceback.format_exception(refusal.value))


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_the_password_is_not_in_the_repr(scheme):
    shown = repr(Catalog(f"{scheme}://aml:s3cret@db:5432/aml?password=s3cret&sslmode=require"))

    assert shown == "Catalog('postgresql://aml:***@db:5432/aml')"


def test_a_file_that_is_not_a_database_is_named_and_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("Dear diary, " * 100)

    with pytest.raises(InvalidConfiguration, match=rf"{file} cannot be used: file is not a database"):
        Catalog(f"sqlite:///{file}").check()

    assert file.read_text() == "Dear diary, " * 100


def test_a_folder_is_not_a_catalog(tmp_path):
    with pytest.raises(InvalidConfiguration, match="unable to open database file"):
        Catalog(f"sqlite:///{tmp_path}").check()


def test_a_folder_nobody_may_write_is_named(folder_for_everyone):
    folder_for_everyone.chmod(0o555)

    with unprivileged():
        with pytest.raises(InvalidConfiguration, match=r"unable to open database file.* this user may write"):
            Catalog(f"sqlite:///{folder_for_everyone}/catalog.db").check()
        with pytest.raises(InvalidConfiguration, match=r"/new' cannot be made: Permission denied"):
            Catalog(f"sqlite:///{folder_for_everyone}/new/catalog.db").check()


def test_a_file_nobody_may_write_is_named(folder_for_everyone):
    file = folder_for_everyone / "catalog.db"
    Catalog(f"sqlite:///{file}").check()
    file.chmod(0o444)

    with unprivileged(), pytest.raises(InvalidConfiguration, match=r"catalog.db cannot be used"):
        Catalog(f"sqlite:///{file}").register_dataset(
            NewDatasetVersion(name="a", definition={}), create_new_version=True
        )


def test_a_file_somebody_keeps_locked_is_an_error_that_a_retry_may_cure(tmp_path):
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db?timeout=0.05")
    catalog.check()
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StorageError, match="database is locked") as failure:
        catalog.register_dataset(NewDatasetVersion(name="a", definition={}), create_new_version=True)

    assert failure.value.__cause__ is not None
    assert catalog.list_datasets() == []  # readers do not wait for writers
    other.close()


def test_a_server_that_is_not_there_is_an_error_that_a_retry_may_cure():
    catalog = Catalog("postgresql://aml:s3cret@127.0.0.1:1/aml")

    with pytest.raises(StorageError, match="onnection refused") as failure:
        catalog.check()

    assert "s3cret" not in "".join(traceback.format_exception(failure.value))


def test_a_wrong_password_is_not_repeated_in_the_error(postgres_server):
    catalog = Catalog(postgres_server.url("postgres", password="s3cret of mine"))

    with pytest.raises(StorageError, match="password authentication failed") as failure:
        catalog.check()

    shown = "".join(traceback.format_exception(failure.value)) + repr(failure.value) + repr(catalog)
    assert "s3cret" not in shown


def test_a_user_who_may_not_create_tables_is_told(postgres_server, make_postgres_url):
    url = make_postgres_url()
    database = url.partition("?")[0].rpartition("/")[2]
    postgres_server.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")

    with pytest.raises(InvalidConfiguration, match="permission denied for schema public") as refusal:
        Catalog(postgres_server.url(database, user="guest")).check()

    assert "must be allowed to create, read and write tables" in str(refusal.value)


def test_a_connection_the_server_ends_is_an_error_that_a_retry_may_cure(make_postgres_url):
    catalog = Catalog(make_postgres_url())

    with (
        pytest.raises(StorageError, match=r"terminating connection|closed the connection"),
        catalog._database.writing() as connection,
    ):
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    assert catalog.list_datasets() == []
