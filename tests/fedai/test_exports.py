from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from machine_traces import told_places
from run_folders import write_run
from studies import draw_images, small_study

from fedai import exports
from fedai.cli.app import run as fedai
from fedai.errors import ConfigError
from fedai.evaluation import predict
from fedai.exports import find_model, load_scorer
from fedai.tasks.classification import build_network
from fedai.weights import layout_of

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "small-1", small_study())


def test_a_runs_models_are_listed_the_federated_one_being_the_last_rounds(
    folder: Path, capsys: Capture
) -> None:
    assert fedai(["model", "list", str(folder), "--json"]) == 0
    models = {m["model"]: m for m in json.loads(capsys.readouterr().out)["models"]}
    assert list(models) == ["federated", "local:north", "centralised", "round-0001", "round-0002"]
    assert models["federated"]["sha256"] == models["round-0002"]["sha256"] != models["round-0001"]["sha256"]
    assert models["local:north"]["manifest"]["cases"] == 3
    assert fedai(["model", "show", str(folder), "federated"]) == 0
    assert models["federated"]["sha256"] in capsys.readouterr().out


def test_weights_that_nobody_has_trained_are_not_the_federated_model(folder: Path, capsys: Capture) -> None:
    (folder / "round-0001").rename(folder / "round-0000")
    (folder / "round-0002" / "weights.safetensors").unlink()
    words = ["model", "export", str(folder), "federated", "--out", str(folder / "model.pt")]
    assert fedai(words) == 2
    assert "the run has no model 'federated'" in capsys.readouterr().err
    assert not (folder / "model.pt").exists()


def test_the_exported_file_scores_images_as_the_network_does(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "model.pt"
    assert fedai(["model", "export", str(folder), "local:north", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-5
    network = build_network(small_study())
    from fedai.checkpoint import load_checkpoint
    from fedai.weights import unpack

    layout = layout_of(network)
    unpack(load_checkpoint(folder / "local-north", layout), network, layout)
    images, _ = draw_images(40)
    with torch.inference_mode():
        scores = torch.jit.load(str(out))(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(scores, predict(network, images), atol=1e-5)
    assert scores.shape == (40, 2)


def test_a_torchscript_file_names_no_folder_of_the_machine_that_wrote_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.pt"
    words = ["model", "export", str(folder), "federated", "--out", str(out)]
    assert fedai(words) == 0
    assert told_places(out) == []
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["model.pt"]
    monkeypatch.setattr(exports, "_leave_out_where_from", lambda path: None)
    assert fedai([*words, "--force"]) == 0
    assert told_places(out), "as torch writes it, there is something to be found"


def test_an_onnx_file_names_no_folder_of_the_machine_that_wrote_it(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "model.onnx"
    assert fedai(["model", "export", str(folder), "federated", "--to", "onnx", "--out", str(out)]) == 0
    assert told_places(out) == []


def test_a_file_that_scores_otherwise_is_not_handed_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    load = torch.jit.load
    monkeypatch.setattr(torch.jit, "load", lambda path: lambda images: load(path)(images) + 1e-3)
    assert fedai(["model", "export", str(folder), "federated", "--out", str(tmp_path / "model.pt")]) == 1
    assert "0.001 off" in capsys.readouterr().err
    assert not list(tmp_path.glob("model*"))


def test_a_model_that_is_not_there_or_not_whole_is_refused(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert fedai(["model", "export", str(folder), "best", "--out", str(tmp_path / "m.pt")]) == 2
    assert "models: federated, local:north" in capsys.readouterr().err
    study = small_study(strategy={"name": "FedBN"}, network={"normalization": "as_built"})
    partly = write_run(tmp_path / "bn-1", study)
    assert fedai(["model", "export", str(partly), "federated", "--out", str(tmp_path / "m.pt")]) == 2
    assert "FedBN leaves layers at each site" in capsys.readouterr().err


@pytest.mark.parametrize("normalization", ["group", "as_built"])
def test_onnxruntime_scores_batches_of_any_size_as_the_network_does(
    normalization: str, tmp_path: Path, capsys: Capture
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")

    study = small_study(network={"normalization": normalization})
    folder, out = write_run(tmp_path / "small-1", study), tmp_path / "model.onnx"
    words = ["model", "export", str(folder), "federated", "--to", "onnx", "--out", str(out), "--json"]
    assert fedai(words) == 0
    assert json.loads(capsys.readouterr().out)["largest_difference"] < 1e-5
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    images, (_, scorer) = draw_images(40)[0], load_scorer(folder, "federated")
    for batch in (images[:1], images):
        (scores,) = session.run(None, {"images": batch.astype(np.float32)})
        with torch.inference_mode():
            np.testing.assert_allclose(scores, scorer(torch.from_numpy(batch)).numpy(), atol=1e-5)


def test_an_onnx_file_that_scores_otherwise_is_not_handed_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pytest.importorskip("onnxruntime")

    def write_another(scorer: torch.nn.Module, samples: torch.Tensor, path: Path) -> None:
        other = copy.deepcopy(scorer)
        with torch.no_grad():
            list(other.parameters())[-1][0] += 0.01  # the bias of the first class
        write(other, samples, path)

    write = exports._write_onnx
    monkeypatch.setattr(exports, "_write_onnx", write_another)
    words = [
        "model",
        "export",
        str(folder),
        "federated",
        "--to",
        "onnx",
        "--out",
        str(tmp_path / "model.onnx"),
    ]
    assert fedai(words) == 1
    assert "off" in capsys.readouterr().err
    assert not list(tmp_path.glob("model*"))


def test_without_onnx_the_command_that_installs_it_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    words = ["model", "export", str(folder), "federated", "--to", "onnx", "--out", str(tmp_path / "m.onnx")]
    assert fedai(words) == 2
    assert "pip install 'fedai-radiology[onnx]'" in capsys.readouterr().err


def test_the_federated_model_is_the_round_that_the_run_chose(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "small-1", small_study())
    record = json.loads((folder / "record.json").read_text())
    chosen = {"round": 1, "checkpoint": "", "why": "the best of 2 by validation_loss, 0.1000"}
    (folder / "record.json").write_text(json.dumps({**record, "chosen": chosen}))
    assert find_model(folder, "federated").path == folder / "round-0001" / "weights.safetensors"
    assert find_model(folder, "round-0002").path.is_file()
    (folder / "round-0001" / "weights.safetensors").unlink()
    with pytest.raises(ConfigError, match="though the run chose it"):
        find_model(folder, "federated")


def test_a_file_that_is_there_is_written_over_only_by_force(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "model.pt"
    out.write_text("mine")
    words = ["model", "export", str(folder), "federated", "--out", str(out)]
    assert fedai(words) == 2
    assert "give --force to write over this one; nothing was written" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert fedai([*words, "--force"]) == 0
    assert out.stat().st_size > 1000
    assert fedai([*words[:-1], str(tmp_path / "gone" / "model.pt")]) == 2
    assert f"there is no folder {tmp_path / 'gone'}" in capsys.readouterr().err


def test_what_is_known_of_a_model_is_shown_in_plain_words(folder: Path, capsys: Capture) -> None:
    assert fedai(["model", "show", str(folder), "federated"]) == 0
    assert "[" not in capsys.readouterr().out
