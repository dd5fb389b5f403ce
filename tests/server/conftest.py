"""One running server for all tests of this folder that only talk to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from federation_processes import RunningServer, make_home, start_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that records what its public listener receives, under record/ beside its home."""
    folder = tmp_path_factory.mktemp("server")
    with start_server(make_home(folder / "home"), record=folder / "record") as running:
        yield running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server's first database; skips where none is installed."""
    from postgresql import is_installed, start

    if not is_installed():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with start() as url:
        yield url
