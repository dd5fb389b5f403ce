from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from machine_traces import told_places
from run_folders import write_run
from studies import small_study

from fedai import bundles
from fedai.bundles import draw_samples, inference, network_of
from fedai.cli.app import run as fedai
from fedai.preparation import prepare
from fedai.study import Study
from fedai.tasks.classification import build_network

pytest.importorskip("ignite")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("registry") / "small-1", small_study())


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "small"
    words = ["model", "export", str(folder), "federated", "--to", "monai-bundle", "--out", str(out)]
    assert fedai(words) == 0
    return out


def test_the_bundle_holds_what_monais_schema_asks_for(bundle: Path) -> None:
    told = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert not REQUIRED - set(told)
    tensors = [
        *told["network_data_format"]["inputs"].values(),
        *told["network_data_format"]["outputs"].values(),
    ]
    for tensor in tensors:
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} <= set(tensor)
    assert told["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "clear", "1": "nodule"}
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert {"models/model.pt", "configs/inference.json", "docs/README.md", "docs/license.txt"} <= files
    assert not [name for name in files if "__pycache__" in name or name.startswith("eval")]


def test_a_bundle_names_no_folder_of_the_machine_that_wrote_it(bundle: Path) -> None:
    assert told_places(bundle) == []


def be_in(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process import the bundle's scripts, as MONAI's own does."""
    monkeypatch.syspath_prepend(bundle)
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        monkeypatch.delitem(sys.modules, name)


def test_monai_finds_all_that_it_asks_of_a_bundle_for_inference(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.bundle import ConfigWorkflow

    be_in(bundle, monkeypatch)
    config = str(bundle / "configs" / "inference.json")
    workflow = ConfigWorkflow(
        config_file=config, workflow_type="infer", logging_file=False, bundle_root=str(bundle)
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_what_keeps_monai_from_running_a_bundle_is_told(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "bundle"
    shutil.copytree(bundle, broken)
    (broken / "models" / "model.pt").unlink()
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "one.npy", draw_samples()[0])
    with pytest.raises(bundles.TrainingError, match=r"No such file.*model\.pt"):
        bundles.run_bundle(broken, tmp_path / "images", tmp_path / "scores")


REQUIRED = {
    "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
    "task", "description", "authors", "copyright", "network_data_format",
}  # fmt: skip


NETWORKS: list[dict[str, Any]] = [
    {
        "name": "ResNet",
        "block": "bottleneck",
        "layers": [1, 1, 2, 1],
        "block_inplanes": [4, 4, 8, 8],
        "act": "gelu",
    },
    {"name": "DenseNet", "init_features": 8, "growth_rate": 4, "block_config": [2, 2]},
    {"name": "DenseNet121"},
    {"name": "EfficientNetBN"},
    {"name": "SEResNet50"},
]


@pytest.mark.parametrize("normalization", ["as_built", "group"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network["name"])
def test_monai_builds_the_studys_network_from_the_config(
    network: dict[str, Any], normalization: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.bundle import ConfigParser

    study = study_of({**network, "normalization": normalization})
    for name, text in bundles.scripts().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    be_in(tmp_path, monkeypatch)
    built = ConfigParser({"network_def": network_of(study)}).get_parsed_content("network_def").eval()
    own = build_network(study)
    built.load_state_dict(own.state_dict())
    image = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(built(image), own.eval()(image))


def study_of(network: dict[str, Any]) -> Study:
    told = json.loads(small_study().canonical())
    return Study.model_validate({**told, "network": network, "preprocessing": {"image_size": [64, 64]}})


def test_a_network_of_an_installed_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedai.registry import InstalledNetwork

    study = small_study().model_copy(update={"network": InstalledNetwork(name="Tiny")})
    with pytest.raises(bundles.ConfigError, match="Tiny comes from an installed package"):
        inference(study)


def test_a_bundle_that_scores_otherwise_is_not_handed_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    scripts = bundles.scripts()
    scripts["scripts/preparation.py"] = scripts["scripts/preparation.py"].replace("* 255", "* 200")
    monkeypatch.setattr(bundles, "scripts", lambda: scripts)
    out = tmp_path / "bundle"
    words = ["model", "export", str(folder), "federated", "--to", "monai-bundle", "--out", str(out)]
    assert fedai(words) == 1
    assert "off" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone_and_a_missing_package_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = ["model", "export", str(folder), "federated", "--to", "monai-bundle", "--out"]
    assert fedai([*words, str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "fire", None)
    assert fedai([*words, str(tmp_path / "bundle")]) == 2
    told = capsys.readouterr().err
    assert "fire is not installed" in told
    assert "pip install 'fedai-radiology[bundle]'" in told


def test_the_samples_hold_an_image_without_contrast_and_one_with_hardly_any() -> None:
    *_, flat, dot = draw_samples()
    assert np.ptp(flat) == 0
    assert np.ptp(dot) > 0
    assert not prepare(dot, (16, 16), 1.0, 99.0).any()
