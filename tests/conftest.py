"""Makes the modules beside this file importable, and shares one running federation among all tests."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from federation_sites import Federation


settings.register_profile("fedai", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedai")  # no test is timed
SHARED = re.compile(r"\b(federation: Federation|whole_run|misbehaving)\b")
RUNNING = pytest.StashKey[ExitStack]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The walkthrough first: it is the longest single test, and nothing waits for it then."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")


def pytest_collection_finish() -> None:
    """What was collected stays: a full garbage collection (Flower asks for some) needn't go through it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Side by side, one process has the running federation and all tests of it, and one that which is shaken;
    other files go as a whole.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            path = config.rootpath / file
            return "federation" if _shares(path) else "shaken" if _shakes(path) else file

    return Scheduler(config, log)


@cache
def _shares(file: Path) -> bool:
    return file.parent.name != "faults" and SHARED.search(file.read_text(encoding="utf-8")) is not None


@cache
def _shakes(file: Path) -> bool:
    return "shaken: Shaken" in file.read_text(encoding="utf-8")


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Side by side, the federation ends with its last test: idle, it would take time of the others."""
    is_last = hasattr(item.config, "workerinput") and (nextitem is None or not _shares(nextitem.path))
    if is_last and RUNNING in item.config.stash:
        item.config.stash[RUNNING].close()


@pytest.fixture(scope="session")
def federation(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A real server and the agents of north, east and south, over TLS with keys, watched by the witness."""
    from federation_sites import federate

    with ExitStack() as stack:
        pytestconfig.stash[RUNNING] = stack
        yield stack.enter_context(federate(tmp_path_factory.mktemp("federation")))


@pytest.fixture(scope="session")
def whole_run(federation: Federation) -> dict[str, Any]:
    """The record of a run from its start to its judgement, started as a coordinator does."""
    import subprocess

    from federation_processes import fedai_command
    from federation_sites import environment

    study = federation.study("whole", rounds=2, local_models=True)
    file = federation.folder / "whole.yaml"
    file.write_text(json.dumps(study.model_dump(mode="json")))
    words = ["run", "start", str(file), "--home", str(federation.home.folder), "--watch"]
    done = subprocess.run(
        [*fedai_command(), *words], capture_output=True, text=True, timeout=300, check=False,
        env=environment(federation.witness),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + federation.told()
    return federation.runs.record("whole-1")


@pytest.fixture(scope="session")
def misbehaving(federation: Federation) -> dict[str, dict[str, Any]]:
    """Fault -> the round in which the site `west` answered with it, beside an honest one; see faulty_site."""
    from faulty_site import BENCH, PAST
    from fedai_server.launch import halt
    from federation_processes import wait_for

    faults = [*BENCH, *PAST, "past: NaN"]
    plan = federation.folder / "faults.json"
    plan.write_text(json.dumps(dict(enumerate(faults, start=1))))
    federation.add_site("west", faults=plan)
    study = federation.study("faults", sites=("north", "west"), rounds=len(faults) + 1, quorum=1)
    run = federation.start_run(study)
    last = {"number": len(faults)}
    wait_for(
        lambda: (
            federation.has_told(run, "round_closed", **last) or federation.runs.get(run).state == "failed"
        ),
        300,
        f"the last fault\n{federation.told()}",
    )
    halt(federation.home, run)
    rounds = federation.runs.record(run)["rounds"]
    assert len(rounds) >= len(faults), f"{federation.runs.get(run)}\n{federation.told()}"
    return dict(zip(faults, rounds, strict=False))
