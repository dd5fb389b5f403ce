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
