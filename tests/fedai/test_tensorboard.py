from __future__ import annotations

import sys
from pathlib import Path

import pytest
from runs import draw_judgement

from fedai.compare import compare
from fedai.errors import ConfigError
from fedai.events import RoundClosed, judged
from fedai.tensorboard import TensorBoardFiles

READER = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

CLOSED = RoundClosed("small-1", 5, 1.5, ("north",), (), (), {"north": {"train_loss": 0.5}})


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (round, value), by TensorBoard's own reader."""
    read = READER.EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_the_judgement_lies_at_the_last_round_for_each_site_and_for_all(tmp_path: Path) -> None:
    comparison, files = compare(draw_judgement()), TensorBoardFiles(tmp_path, "small-1")
    files.hear(CLOSED)
    files.hear(judged("small-1", comparison))
    files.close()
    federated = comparison.model("federated")
    assert federated is not None
    for place, result in (("all", federated.pooled), *federated.sites.items()):
        found = points(tmp_path / "small-1" / place)
        assert found["test/federated/auroc"] == [(5, pytest.approx(result.auroc.value))]
        assert found["test/federated/cases"] == [(5, result.cases)]
    assert "test/local:east/brier" in points(tmp_path / "small-1" / "all")


def test_what_was_heard_is_on_the_disk_before_the_end(tmp_path: Path) -> None:
    files = TensorBoardFiles(tmp_path, "small-1")
    files.hear(CLOSED)
    assert points(tmp_path / "small-1" / "north") == {"round/train_loss": [(5, 0.5)]}
    files.close()


def test_without_tensorboard_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"fedai-radiology\[tensorboard\]"):
        TensorBoardFiles(tmp_path, "small-1")
