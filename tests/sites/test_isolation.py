"""What the doctor says of how far the agent's process is kept in; and the units that keep it in."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from fedai_site import isolation
from fedai_site.doctor import _policy
from fedai_site.home import SiteHome, SiteSettings, create_home
from homes import settings_for

from fedai.checks import Check
from fedai.cli.app import fedai

UNITS = Path(__file__).resolve().parents[2] / "sites" / "deploy"
SERVICES = sorted(UNITS.glob("*.service"))


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return create_home(tmp_path / "north", settings_for(tmp_path))


def checks(home: SiteHome) -> dict[str, Check]:
    return {check.name: check for check in isolation.examine(home)}


@contextmanager
def running(home: SiteHome, *before: str, **said: Any) -> Iterator[None]:
    """A process that says in status.json that it is the agent."""
    words = [*before, sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)", "start"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        home.status.write_text(json.dumps({"state": "connected", "pid": process.pid, **said}))
        try:
            yield
        finally:
            process.kill()


def test_of_an_agent_that_does_not_run_nothing_is_claimed(home: SiteHome) -> None:
    assert checks(home)["isolation"].found == "unknown: the agent isn't running"
    home.status.write_text(json.dumps({"state": "connected", "pid": os.getpid()}))  # another's number by now
    assert set(checks(home)) == {"user", "isolation"}
    assert checks(home)["user"].warns == (os.geteuid() == 0)


def test_of_a_running_agent_it_is_told_what_holds(home: SiteHome) -> None:
    with running(home, reaches=["fl.example.org:8443"]):
        found = checks(home)
    assert found["connect hook"].found == "in Python code the agent reaches fl.example.org:8443 alone"
    assert "IP filter of the system: unknown" in found["network"].found
    assert found["clean data"].found == "the agent's process could write to clean/"
    assert found["limits"].found.endswith("its watchdog ends work never (memory_gb, stuck_minutes)")
    assert all(check.ok for check in found.values())


def test_an_agent_without_the_hook_is_told(home: SiteHome) -> None:
    with running(home):
        assert not checks(home)["connect hook"].ok


def test_no_new_privileges_and_a_network_of_its_own_are_seen(home: SiteHome) -> None:
    if not (shutil.which("setpriv") and shutil.which("unshare")):
        pytest.skip("neither setpriv nor unshare on this system")
    alone = ["unshare", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",))]
    if subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system gives no namespace")
    with running(home, *alone, "setpriv", "--no-new-privs", reaches=["x:1"]):
        found = checks(home)
    assert found["privileges"].found.startswith("may not gain privileges, no seccomp")
    assert found["network"].found.startswith("a network namespace of its own")
    with running(home, reaches=["x:1"]):
        assert checks(home)["network"].found.startswith("this machine's network")


def test_a_protection_that_the_policy_asks_for_in_vain_is_told(home: SiteHome) -> None:
    home.rules.write_text("privacy: {secure_aggregation: required}")
    check = next(iter(_policy(home)))
    assert (check.ok, check.found) == (False, "secure aggregation required; this release has none")


def test_what_the_watchdog_holds_to_is_told(home: SiteHome) -> None:
    changed = {"memory_gb": 12, "stuck_minutes": 30}
    settings = SiteSettings.model_validate(home.settings.model_dump() | changed)
    found = isolation._watchdog(SiteHome(home.folder, settings))
    assert found == "its watchdog ends work beyond 12 GB or after 30 minutes without a batch"


# ------------------------------------------------------------------------------------------ systemd's units


def settings_of(unit: Path) -> dict[str, list[str]]:
    """Key -> values, over all sections."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    (start,) = settings_of(unit)["ExecStart"]
    words = shlex.split(start)
    assert words[0].endswith("/fedai")
    context = fedai.make_context("fedai", words[1:])
    while isinstance(context.command, click.Group):
        words = [*context._protected_args, *context.args]
        name, found, rest = context.command.resolve_command(context, words)
        assert found is not None
        context = found.make_context(name, rest, parent=context)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_systemd_understands_every_setting(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on this system")
    text = unit.read_text(encoding="utf-8").replace("/opt/fedai/bin/fedai", sys.executable)
    made = tmp_path / unit.name.replace("@.", "@north.")
    made.write_text(re.sub("^(User|Group)=.*$", "", text, flags=re.M), encoding="utf-8")
    drop_ins = UNITS / f"{unit.name}.d"
    if drop_ins.exists():
        shutil.copytree(drop_ins, tmp_path / f"{made.name}.d")
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(made)], capture_output=True, text=True, check=False, timeout=60
    )
    about = [line for line in done.stderr.splitlines() if made.name in line]
    assert about == []


def test_the_units_hold_what_the_pages_say() -> None:
    agent, intake, receive = (
        settings_of(UNITS / f"fedai-{name}@.service") for name in ("agent", "inbox", "receive")
    )
    for unit in (agent, intake, receive):
        assert unit["NoNewPrivileges"] == ["yes"]
        assert unit["ProtectSystem"] == ["strict"]
        assert unit["CapabilityBoundingSet"] == [""]
        assert unit["User"] != ["root"]
        assert {"MemoryMax", "CPUQuota", "TasksMax"} <= unit.keys()
    assert agent["IPAddressDeny"] == receive["IPAddressDeny"] == ["any"]
    assert "/srv/fedai/%i/clean" in agent["ReadOnlyPaths"][0].split()
    assert intake["PrivateNetwork"] == ["yes"]
    hidden = " ".join(intake["InaccessiblePaths"])
    assert all(f"keys/{name}.key" in hidden for name in ("agent", "engineer", "ledger", "receipts"))
    assert "/srv/fedai/%i/keys" in receive["InaccessiblePaths"][0].split()
