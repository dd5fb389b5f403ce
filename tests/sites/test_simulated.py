"""Homes as sites of a simulation: the same cases as in a run, noted as used, and none after a withdrawal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from fedai_site import influence
from fedai_site.home import SiteHome
from fedai_site.simulated import open_homes
from homes import make_home
from studies import SMALL, small_study

from fedai.cli.app import run
from fedai.errors import ConfigError

STUDY = small_study()


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[SiteHome]:
    folder = tmp_path_factory.mktemp("homes")
    return [make_home(folder, name, 28, first=28 * place) for place, name in enumerate(("north", "east"))]


def test_the_command_trains_over_homes_and_each_notes_whom_it_used(
    homes: list[SiteHome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, out = tmp_path / "study.yaml", tmp_path / "out"
    study.write_text(yaml.safe_dump(SMALL))
    words = [word for home in homes for word in ("--home", str(home.folder))]
    assert run(["simulate", str(study), *words, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(told["site_auroc"]) == ["east", "north"]
    assert json.loads((out / "manifest.json").read_text())["study"] == STUDY.sha256 == told["study"]
    for home in homes:
        with open_homes([home.folder], STUDY, "again") as (site,):
            patients = {split: set(site.cases(split).patients) for split in ("train", "test")}
        assert not patients["train"] & patients["test"]
        for split, task in (("train", "train"), ("test", "score")):
            patient = min(patients[split])
            uses = influence.uses_of(home.catalogue, patient)
            assert (f"simulation {out}", task) in {(use.run, use.task) for use in uses}


def test_homes_that_the_study_does_not_name_or_that_come_twice_are_refused(homes: list[SiteHome]) -> None:
    other = small_study(sites=["west", "east"])
    for folders, study in ((homes, other), ([homes[0], homes[0]], STUDY)):
        with (
            pytest.raises(ConfigError, match="not named by the study, or twice"),
            open_homes([home.folder for home in folders], study, "x"),
        ):
            pass
