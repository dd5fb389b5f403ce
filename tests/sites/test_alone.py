from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fedai_site.alone import train_alone
from homes import make_home
from studies import small_study

from fedai.checkpoint import load_checkpoint
from fedai.errors import TrainingError
from fedai.tasks.classification import build_network
from fedai.weights import layout_of, pack

STUDY = small_study(training={"rounds": 2, "local_epochs": 1})


def go_on() -> bool:
    return True


def test_several_homes_make_one_model_of_all_their_training_cases(tmp_path: Path) -> None:
    homes = [make_home(tmp_path, name, 8, first=8 * index) for index, name in enumerate(("north", "east"))]
    alone = [
        train_alone([home], STUDY, tmp_path / home.settings.name / "out", may_go_on=go_on) for home in homes
    ]
    together = train_alone(homes, STUDY, tmp_path / "out", may_go_on=go_on)
    assert together["cases"] == sum(int(str(made["cases"])) for made in alone)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["sites"] == ["north", "east"]
    assert (manifest["study"], manifest["sha256"]) == (STUDY.sha256, together["sha256"])


def test_the_checkpoint_is_of_the_studys_network_and_the_same_every_time(tmp_path: Path) -> None:
    home = make_home(tmp_path, patients=8)
    made = [train_alone([home], STUDY, tmp_path / out, may_go_on=go_on)["sha256"] for out in ("a", "b")]
    assert made[0] == made[1]
    network = build_network(STUDY)
    loaded = load_checkpoint(tmp_path / "a", layout_of(network))
    assert not np.array_equal(loaded.parameters, pack(network, layout_of(network)).parameters)


def test_nothing_is_written_where_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    home = make_home(tmp_path, patients=4)
    study = small_study(cohort={"modality": ["CT"]})
    with pytest.raises(TrainingError, match="no training case"):
        train_alone([home], study, tmp_path / "out", may_go_on=go_on)
    with pytest.raises(TrainingError, match="was stopped"):
        train_alone([home], STUDY, tmp_path / "out", may_go_on=lambda: False)
    assert not (tmp_path / "out").exists()
