"""Commands as their user gives them, in this process."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fedai.cli.app import run

Capture = pytest.CaptureFixture[str]


def told(capsys: Capture, *arguments: object) -> tuple[int, dict[str, Any]]:
    """A command's exit code and its JSON."""
    capsys.readouterr()
    code = run([*map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)
