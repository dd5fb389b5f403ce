"""A simulation is the federation without processes: the same homes, study and seeds, the same weights."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from federation_processes import fedai_command
from federation_sites import SITES, Federation, environment

from fedai.checkpoint import checkpoint_sha256

pytestmark = pytest.mark.federation


def test_simulating_a_run_over_its_homes_gives_its_last_checkpoint_to_the_bit(
    whole_run: dict[str, Any], federation: Federation, tmp_path: Path
) -> None:
    homes = [word for site in SITES for word in ("--home", str(federation.sites[site].home.folder))]
    study, out = str(federation.folder / "whole.yaml"), str(tmp_path / "out")
    done = subprocess.run(
        [*fedai_command(), "simulate", study, *homes, "--out", out, "--threads", "1", "--json"],
        capture_output=True, text=True, timeout=120, check=False, env=environment(tmp_path / "witness"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["study"] == whole_run["study_hash"]
    assert told["sha256"] == whole_run["rounds"][-1]["checkpoint"] == checkpoint_sha256(tmp_path / "out")
