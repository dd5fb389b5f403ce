"""What a doctor looks at: one check, and those that both sides share."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import typer

from fedai.cli.output import emit, table

TESTED_FLOWER = "1.41.0"
DISK_WANTED_GB = 5.0


@dataclass(frozen=True)
class Check:
    """One thing looked at; `hint` says what to do where it isn't well. `warns`: nothing fails for it, but
    somebody should know.
    """

    name: str
    ok: bool
    found: str
    hint: str = ""
    warns: bool = False


def check_flower() -> Check:
    """Is the installed Flower the one that this release was tested with?"""
    found = version("flwr")
    hint = "" if found == TESTED_FLOWER else f"pip install flwr=={TESTED_FLOWER}"
    return Check("flower", found == TESTED_FLOWER, found, hint)


def check_disk(folder: Path, why: str) -> Check:
    """Is there room where the home lies?"""
    free = shutil.disk_usage(folder).free / 1e9
    return Check("disk", free >= DISK_WANTED_GB, f"{free:.0f} GB free", "" if free >= DISK_WANTED_GB else why)


def _mark(check: Check) -> str:
    return "BAD" if not check.ok else "note" if check.warns else "ok"


def tell(checks: Iterable[Check], *, as_json: bool) -> None:
    """Print all checks; ends the command with exit code 1 where one failed."""
    found = tuple(checks)
    healthy = all(check.ok for check in found)
    rows = [(_mark(check), check.name, check.found, check.hint) for check in found]
    result = {"healthy": healthy, "checks": [asdict(check) for check in found]}
    emit(result, as_json=as_json, lines=table(("", "check", "found", "next"), rows))
    if not healthy:
        raise typer.Exit(1)
