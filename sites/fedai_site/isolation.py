"""How far the agent's process is kept in, for the doctor: read from /proc and /sys; nothing is changed.

What can't be told from here is called unknown. Of an agent that isn't running nothing is claimed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedai.checks import Check
from fedai_site.home import SiteHome
from fedai_site.overview import agent_facts

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
UNITS = "see sites/deploy/ for a systemd unit that holds it"
SECCOMP = {"0": "no seccomp", "1": "strict seccomp", "2": "a seccomp filter"}


def examine(home: SiteHome) -> Iterator[Check]:
    """Of the running agent: user, connect hook, network, privileges, clean images, limits."""
    said = agent_facts(home)
    pid = _running(said)
    if pid is None:
        yield _user(os.geteuid(), "this command's user, the agent isn't running")
        yield Check("isolation", True, "unknown: the agent isn't running")
        return
    status = _status(PROC / str(pid) / "status")
    user = status.get("Uid", "").split()
    yield _user(int(user[0]) if user else -1, "the agent's user")
    yield _hook(said)
    yield Check("network", True, f"{_namespace(pid)}; an IP filter of the system: unknown")
    yield _privileges(status)
    yield _clean_data(home, pid)
    yield Check("limits", True, f"{_limits(pid)}; {_watchdog(home)}")


def _running(said: Mapping[str, Any]) -> int | None:
    """The number of the agent's process; None where that ended, or where another one has the number now."""
    pid = int(said.get("pid", 0))
    if not pid or said["state"] in ("stopped", "ended without a word"):
        return None
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return pid if b"start" in words else None


def _status(path: Path) -> dict[str, str]:
    """/proc/PID/status as name -> value; nothing where it can't be read."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _user(number: int, whose: str) -> Check:
    is_root = number == 0
    hint = "run the agent as a user of its own" if is_root else ""
    return Check("user", True, f"{number}{' (root)' if is_root else ''}: {whose}", hint, warns=is_root)


def _hook(said: Mapping[str, Any]) -> Check:
    places = said.get("reaches") or []
    if not places:
        return Check("connect hook", False, "none: an agent of an earlier release?", "start it again")
    return Check("connect hook", True, f"in Python code the agent reaches {', '.join(places)} alone")


def _namespace(pid: int) -> str:
    """Held against that of process 1, where that may be seen, else this command's."""
    own, first, here = (_link(PROC / who / "ns" / "net") for who in (str(pid), "1", "self"))
    if not own or not (first or here):
        return "network namespace: unknown"
    return "this machine's network" if own == (first or here) else "a network namespace of its own"


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def _privileges(status: Mapping[str, str]) -> Check:
    if not status:
        return Check("privileges", True, "unknown")
    gains = "may not gain privileges" if status.get("NoNewPrivs") == "1" else "may gain privileges"
    seccomp = SECCOMP.get(status.get("Seccomp", ""), "seccomp unknown")
    able = "no capability" if int(status.get("CapEff", "0"), 16) == 0 else "capabilities of the system"
    held = status.get("NoNewPrivs") == "1" and status.get("Seccomp") == "2"
    return Check("privileges", True, f"{gains}, {seccomp}, {able}", "" if held else UNITS)


def _clean_data(home: SiteHome, pid: int) -> Check:
    """Whether the file system shows the clean images to the agent read-only."""
    try:
        lines = (PROC / str(pid) / "mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Check("clean data", True, "read-only for the agent: unknown")
    clean = (home.folder / "clean").resolve()
    mounts = [(Path(_unescaped(words[4])), words[5].split(",")) for words in map(str.split, lines)]
    over = [mount for mount in mounts if clean.is_relative_to(mount[0])]
    is_read_only = bool(over) and "ro" in max(over, key=lambda mount: len(mount[0].parts))[1]
    said = "read-only for the agent" if is_read_only else "the agent's process could write to clean/"
    return Check("clean data", True, said, "" if is_read_only else UNITS)


def _unescaped(text: str) -> str:
    """/proc writes blanks in paths as octal numbers."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text


def _limits(pid: int) -> str:
    """Of the agent's control group (version 2); the nearest that says something."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "the system's limits: unknown"
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return "the system's limits: unknown"
    group = CGROUPS / own.lstrip("/")
    memory, cpu = (_nearest(group, name) for name in ("memory.max", "cpu.max"))
    return f"memory.max {memory}, cpu.max {cpu}"


def _nearest(group: Path, name: str) -> str:
    for folder in (group, *group.parents):
        if not folder.is_relative_to(CGROUPS):
            break
        try:
            found = (folder / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if not found.startswith("max"):
            return found
    return "none"


def _watchdog(home: SiteHome) -> str:
    memory, minutes = home.settings.memory_gb, home.settings.stuck_minutes
    said = [f"beyond {memory:g} GB"] if memory else []
    said += [f"after {minutes:g} minutes without a batch"] if minutes else []
    return f"its watchdog ends work {' or '.join(said) or 'never (memory_gb, stuck_minutes)'}"
