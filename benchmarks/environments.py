"""Environments of their own for what is measured beside fedai."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def environment(folder: Path, requirement: str, also: tuple[str, ...] = ()) -> tuple[Path | None, str]:
    """The Python of one below `folder` in which `requirement` (NAME==VERSION) is installed, with the same
    torch, numpy, `also` and MONAI as here; or why there is none. One that was cut off is made anew.
    """
    python = folder / requirement.partition("=")[0] / "bin" / "python"
    if python.with_name("ready").exists():
        return python, ""
    same = [f"{name}=={version(name).partition('+')[0]}" for name in ("torch", "numpy", *also)]
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(python.parents[1])],
        [*pip, requirement, *same],
        [*pip, "--no-deps", f"monai=={version('monai')}"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    python.with_name("ready").touch()
    return python, ""
