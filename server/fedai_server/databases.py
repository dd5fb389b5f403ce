"""Opening the run database, wherever it is, at the schema of this release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from fedai.errors import ConfigError

SCHEMA = "3"
"""The newest of migrations/versions."""
BUSY_S = 30


class Unusable(ConfigError):
    """The run database can't be used now: it is away, locked, or its disk is full. It may pass."""


@contextmanager
def transaction(place: Path | str, *, writes: bool, busy_s: float | None = None) -> Iterator[Connection]:
    """One transaction on an SQLite file, or on the database of a URL; brought to this release's schema first.

    `busy_s`: how long to wait for a turn, or for the other side (default: BUSY_S for a file). Raises Unusable
    where it can't be reached or written, ConfigError where it is of a newer release.
    """
    engine = _engine(str(place) if "://" in str(place) else f"sqlite:///{place}", busy_s)
    try:
        with engine.connect().execution_options(writes=writes) as connection:
            version = _version(connection)
            connection.rollback()
            if version != SCHEMA:
                _upgrade(engine)
            with connection.begin():
                yield connection
    except OperationalError as error:
        raise Unusable(
            f"the run database can't be used ({type(error.orig).__name__})",
            where=engine.url.render_as_string(hide_password=True),
            hint="is it there, and free, and is there room on its disk? see runs_database in server.yaml",
        ) from error


def check_url(url: str) -> None:
    """Raise ValueError for a URL that isn't a database's, or that holds a password."""
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError):
        raise ValueError("not a database's URL, such as postgresql+psycopg://HOST/DATABASE") from None
    if parsed.password:
        raise ValueError("a database's URL holds no password here: put it into ~/.pgpass")


@cache
def _engine(url: str, busy_s: float | None) -> Engine:
    if not url.startswith("sqlite"):
        try:
            within = {} if busy_s is None else {"connect_timeout": max(2, round(busy_s))}
            return create_engine(url, pool_pre_ping=True, connect_args=within)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{error.name} is not installed", hint="pip install 'fedai-radiology[postgresql]'"
            ) from error
    engine = create_engine(
        url, poolclass=NullPool, connect_args={"timeout": BUSY_S if busy_s is None else busy_s}
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _configure(connection: Any, _: ConnectionPoolEntry) -> None:
    """Python's sqlite3 begins transactions of its own, too late; we begin them."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")


def _begin(connection: Connection) -> None:
    """A transaction that will write says so at once, and waits for its turn instead of failing halfway."""
    writes = connection.get_execution_options().get("writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _version(connection: Connection) -> str:
    """Of the schema; "" where there is none. Raises ConfigError for one that isn't known here."""
    asked = text("SELECT version_num FROM alembic_version")
    try:
        version = str(connection.execute(asked).scalar() or "")
    except DBAPIError:
        connection.rollback()
        if not inspect(connection).has_table("alembic_version"):
            return ""
        try:  # another process may have made it just now
            version = str(connection.execute(asked).scalar() or "")
        except DBAPIError as error:
            raise ConfigError("the run database can't be read") from error
    if version.isdigit() and int(version) > int(SCHEMA):
        raise ConfigError(
            f"the run database has schema {version}, this release knows up to {SCHEMA}",
            hint="update this server's fedai; nothing was changed",
        )
    return version


def _upgrade(engine: Engine) -> None:
    """All steps in one transaction, which another process waits for."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7365)"))
        tables = set(inspect(connection).get_table_names())
        config.attributes["connection"] = connection
        if "runs" in tables and "alembic_version" not in tables:
            command.stamp(config, "1")
        command.upgrade(config, "head")
