"""One running server for all tests that only talk to it; rounds in this process that don't wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fedai_server import rounds
from fedai_server.home import open_home
from federation_processes import RunningServer, free_port, make_home, start_server
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll every few milliseconds; be some run's process, as Flower's messages ask for."""
    monkeypatch.setattr(rounds, "LOOK_AROUND_S", 0.02)
    monkeypatch.setattr(rounds, "SHORTEST_POLL_S", 0.005)
    monkeypatch.setattr(rounds, "LONGEST_POLL_S", 0.01)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that records what its public listener receives, under record/ beside its home, and that tells
    how it is on a port.
    """
    folder = tmp_path_factory.mktemp("server")
    home = make_home(folder / "home")
    with (home.folder / "server.yaml").open("a") as settings:
        settings.write(f"metrics_port: {free_port()}\n")
    with start_server(open_home(home.folder), record=folder / "record") as running:
        yield running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server's first database; skips where none is installed."""
    from postgresql import is_installed, start

    if not is_installed():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with start() as url:
        yield url
