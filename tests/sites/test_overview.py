from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fedai_site import approvals
from fedai_site.home import SiteHome
from fedai_site.overview import overview, overview_lines
from homes import make_home
from studies import SMALL, small_study

from fedai.errors import ConfigError
from fedai.ledger import Ledger


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return make_home(tmp_path, patients=8)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(SMALL))
    return tmp_path / "study.yaml"


def test_a_new_home_says_that_nothing_has_happened(tmp_path: Path) -> None:
    from fedai_site.home import create_home
    from homes import settings_for

    facts = overview(create_home(tmp_path / "north", settings_for(tmp_path)))
    assert facts["agent"] == {"state": "never started"}
    assert (facts["files"], facts["approvals"], facts["ledger"]) == ({}, [], {"lines": 0, "head": ""})
    assert "files      none yet" in overview_lines(facts)


def test_files_approvals_ledger_and_cohort_are_counted(home: SiteHome, study: Path) -> None:
    approvals.approve(home.approvals, small_study(), "Dr. Who")
    head = Ledger(home.ledger).append(kind="status", run="r-1")
    facts = overview(home, study)
    assert facts["files"] == {"WRITTEN": 16}
    assert [approval["approved_by"] for approval in facts["approvals"]] == ["Dr. Who"]
    assert facts["ledger"] == {"lines": 1, "head": head}
    assert facts["cohort"]["flow"]["used"] == 16
    assert sum(split["cases"] for split in facts["cohort"]["splits"].values()) == 16
    assert sum(split["patients"] for split in facts["cohort"]["splits"].values()) == 8
    json.dumps(facts)
    text = "\n".join(overview_lines(facts))
    assert "small version 1" in text
    assert "16 used" in text
    assert not any(f"P{number}" in text for number in range(8))


def say(home: SiteHome, state: str, pid: int) -> None:
    home.status.write_text(json.dumps({"state": state, "text": "t", "at": "now", "pid": pid}))


def test_the_agents_own_word_is_believed_while_it_lives(home: SiteHome) -> None:
    say(home, "connected", os.getpid())
    assert overview(home)["agent"]["state"] == "connected"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    say(home, "connected", gone.pid)
    assert overview(home)["agent"]["state"] == "ended without a word"
    say(home, "stopped", gone.pid)
    assert overview(home)["agent"]["state"] == "stopped"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"state": "connected"}', '{"state": "connected", "pid": "x"}']
)
def test_a_damaged_status_is_no_obstacle(text: str, home: SiteHome) -> None:
    home.status.write_text(text)
    assert overview(home)["agent"] == {"state": "never started"}


def test_a_wrong_study_file_is_named(home: SiteHome, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*gone"):
        overview(home, tmp_path / "gone.yaml")
