"""What takes data in opens the key of the pseudonyms, and not the agent's, the engineer's or the ledger's.

By the witness in every process that the command starts (see witness/).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fedai_site.home import SiteHome, create_home
from homes import settings_for

from fedai.demo.hospital import write_image
from fedai.signatures import write_key

WITNESS = Path(__file__).parent / "witness"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    """With every key that a home may have."""
    folder = tmp_path_factory.mktemp("site")
    made = create_home(folder / "north", settings_for(folder))
    write_key(made.engineer_key)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 4000, (16, 16), np.uint16)
        write_image(folder / "export" / f"{number}.dcm", pixels, patient=f"P{number}", bits=12)
    (folder / "labels.csv").write_text("PatientID,label,reader\nP0,clear,Hong\nP1,nodule,Hong\n")
    return made


def opened(home: SiteHome, notes: Path, *words: str) -> set[str]:
    """The files in keys/ that a command and its children opened."""
    environment = os.environ | {
        "PYTHONPATH": str(WITNESS), "FEDAI_WITNESS": str(notes), "FEDAI_WITNESS_ALSO": "/keys/",
    }  # fmt: skip
    command = [sys.executable, "-c", "from fedai.cli.app import main; main()", "site", *words]
    subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True)
    lines = [json.loads(line) for path in notes.iterdir() for line in path.read_text().splitlines()]
    paths = [Path(line["told"][0]) for line in lines if line["event"] == "open"]
    return {path.name for path in paths if path.parent == home.folder / "keys"}


def test_adding_data_opens_the_key_of_the_pseudonyms_alone(home: SiteHome, tmp_path: Path) -> None:
    folder = home.folder.parent
    words = ("add-data", str(home.folder), str(folder / "export"), "--labels", str(folder / "labels.csv"))
    assert opened(home, tmp_path / "notes", *words) == {"pseudonym.key"}


def test_the_witness_sees_a_command_that_opens_another_key(home: SiteHome, tmp_path: Path) -> None:
    assert "agent.key.new" in opened(home, tmp_path / "notes", "renew-key", str(home.folder))
