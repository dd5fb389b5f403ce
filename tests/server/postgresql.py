"""A PostgreSQL server of the tests' own, where it is installed: on a socket in a folder, gone with them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def is_installed() -> bool:
    return bool(PROGRAMS)


@contextmanager
def start() -> Iterator[str]:
    """The URL of its first database."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # not pytest's: another user has to enter it
    user = _owner(folder)
    data = folder / "data"
    try:
        _run("initdb", "--pgdata", data, "--auth", "trust", "--username", "fedai", "--no-sync", user=user)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        _run(
            "pg_ctl",
            "--pgdata",
            data,
            "--wait",
            "--log",
            folder / "log",
            "--options",
            options,
            "start",
            user=user,
        )
        try:
            yield f"postgresql+psycopg://fedai@/postgres?host={folder}"
        finally:
            _run("pg_ctl", "--pgdata", data, "--wait", "--mode", "immediate", "stop", user=user)
    finally:
        shutil.rmtree(folder)


def new_database(server: str) -> str:
    """The URL of a new, empty one."""
    from sqlalchemy import create_engine, text

    name = f"runs_{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


def _owner(folder: Path) -> str | None:
    """PostgreSQL refuses to run as root: then whom it runs as."""
    if os.getuid():
        return None
    entry = pwd.getpwnam("postgres")
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return entry.pw_name


def _run(program: str, *arguments: object, user: str | None) -> None:
    command = [str(PROGRAMS[0] / program), *map(str, arguments)]
    done = subprocess.run(
        command, user=user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
