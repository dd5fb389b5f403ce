"""A model as a MONAI bundle: a folder that `python -m monai.bundle run` runs, without fedai.

MONAI reads the files, builds the network and scores. What MONAI's own transforms do otherwise than sites
(area averages, images without contrast, normalization) goes along as scripts, which are the text of fedai's
own functions. MONAI runs the bundle on sample images before it is handed over.
"""

from __future__ import annotations

import csv
import importlib.resources
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedai import __version__
from fedai.checklists import FOR_AUTHORS
from fedai.errors import ConfigError, TrainingError
from fedai.exports import MOST_APART, find_model, load_scorer
from fedai.model_card import card_of, markdown
from fedai.preparation import prepare
from fedai.record import read_record
from fedai.registry import InstalledNetwork
from fedai.study import Preprocessing, Study
from fedai.tasks.classification import group_count, replace_batch_norm, to_input

EXTRA = "pip install 'fedai-radiology[bundle]'"
SCHEMA = "https://project-monai.github.io/schema/meta_schema_20240725.json"
SAMPLES = ((40, 30), (64, 64), (300, 500), (17, 90), (128, 100), (20, 20), (20, 20))
RUN = ("-m", "monai.bundle", "run", "--config_file", "configs/inference.json")
RUN_S = 600
CAUSE = re.compile(r"^[\w.]*(?:Error|Exception): .*$", re.M)  # the first of a chain
NETWORK_HEAD = '''"""From fedai {version} (Apache-2.0): how images and layers are normalized."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
'''
LICENCE = """\
The model's licence is for its authors to state here.

SPDX-License-Identifier of the folder scripts/: Apache-2.0. It is part of fedai.
"""
SHAPES: dict[str, tuple[str, str]] = {
    "ResNet": ("n_input_channels", "num_classes"),
    "DenseNet": ("in_channels", "out_channels"),
    "DenseNet121": ("in_channels", "out_channels"),
    "EfficientNetBN": ("in_channels", "num_classes"),
    "SEResNet50": ("in_channels", "num_classes"),
}
"""How each network calls channels in and classes out."""
PRETRAINABLE = ("DenseNet121", "EfficientNetBN", "SEResNet50")


@dataclass(frozen=True)
class Bundle:
    """What goes into one: the run's folder, the model's name, its study, and the network with its weights."""

    run: Path
    model: str
    study: Study
    scorer: nn.Module

    @property
    def network(self) -> nn.Module:
        network: nn.Module = self.scorer.get_submodule("network")
        return network


def export_bundle(folder: Path, name: str, out: Path) -> float:
    """Write a model as a MONAI bundle into the new folder `out`. Gives the largest distance of a score that
    MONAI computed with it from the network's own.

    Raises ConfigError where `out` is there already, MONAI's runner isn't installed, the model is of a
    segmentation or the network is not one of MONAI's, TrainingError where the bundle scores otherwise; then
    there is none.
    """
    require_runner()
    if out.exists():
        raise ConfigError(f"{out} is there already", hint="give a new folder; nothing is overwritten")
    bundle = Bundle(folder, name, *load_scorer(folder, name))
    if bundle.study.task.kind != "classification":
        raise ConfigError("bundles are of classifications alone", hint="--to torchscript or --to onnx")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        write(bundle, partial)
        apart = compare_with_monai(bundle, partial)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return apart


def require_runner() -> None:
    """Raise ConfigError where what MONAI runs bundles with isn't installed."""
    try:
        import fire  # noqa: F401
        import ignite  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed", hint=EXTRA) from None


def write(bundle: Bundle, folder: Path) -> None:
    """Write all files of the bundle, unseen by MONAI yet."""
    for name in ("configs", "models", "scripts", "docs"):
        (folder / name).mkdir(parents=True)
    texts = {
        "configs/metadata.json": json.dumps(metadata(bundle), indent=1, ensure_ascii=False),
        "configs/inference.json": json.dumps(inference(bundle.study), indent=1, ensure_ascii=False),
        "docs/README.md": _readme(bundle),
        "docs/license.txt": LICENCE,
        **scripts(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    torch.save(bundle.network.state_dict(), folder / "models" / "model.pt")


def network_of(study: Study) -> dict[str, Any]:
    """The network as a MONAI config defines it. Raises ConfigError for one that MONAI doesn't have."""
    network = study.network
    if isinstance(network, InstalledNetwork):
        raise ConfigError(
            f"the network {network.name} comes from an installed package, MONAI doesn't have it",
            hint="export it with --to onnx or torchscript",
        )
    channels, classes = SHAPES[network.name]
    made = {
        "_target_": f"monai.networks.nets.{network.name}",
        "spatial_dims": 2,
        channels: 1,
        classes: len(study.task.classes),
        **({"pretrained": False} if network.name in PRETRAINABLE else {}),
        **network.model_dump(mode="json", exclude={"name", "normalization"}),
    }
    if network.normalization == "as_built":
        return made
    replaced = {"_target_": "scripts.network.replace_batch_norm", "module": made}
    return {**replaced, "normalization": network.normalization}


def inference(study: Study) -> dict[str, Any]:
    """configs/inference.json."""
    return {
        "imports": ["$import glob", "$import os", "$import scripts.images as images"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$sorted(filter(os.path.isfile, glob.glob(@dataset_dir + '/*')))",
        "network_def": network_of(study),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": _transforms(study.preprocessing)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            },
            {
                "_target_": "ClassificationSaver",
                "output_dir": "@output_dir",
                "filename": "predictions.csv",
                "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
                "output_transform": "$monai.handlers.from_engine(['pred'])",
            },
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _transforms(preprocessing: Preprocessing) -> list[dict[str, Any]]:
    """The readers are tried from the last to the first; MONAI's own settings would swap rows and columns."""
    rows, columns = preprocessing.image_size
    bounds = f"{preprocessing.lower_percentile!r}, {preprocessing.upper_percentile!r}"
    readers = [
        "$monai.data.PydicomReader(swap_ij=False, prune_metadata=False)",
        "$monai.data.NumpyReader()",
        "$monai.data.PILReader(reverse_indexing=False)",
    ]
    func = f"$lambda image: images.to_network(image, ({rows}, {columns}), {bounds})"
    return [
        {"_target_": "LoadImaged", "keys": "image", "reader": readers},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Lambdad", "keys": "image", "func": func},
    ]


def scripts() -> dict[str, str]:
    """The bundle's own code by file: fedai's own functions, with the bundle's names for where they are."""
    files = importlib.resources.files("fedai")
    images = files.joinpath("bundle_images.py").read_text("utf-8")
    images = images.replace("from fedai.preparation import", "from scripts.preparation import")
    images = images.replace("from fedai.tasks.classification import", "from scripts.network import")
    functions = [inspect.getsource(one) for one in (to_input, replace_batch_norm, group_count)]
    return {
        "scripts/__init__.py": "",
        "scripts/images.py": images,
        "scripts/preparation.py": files.joinpath("preparation.py").read_text("utf-8"),
        "scripts/network.py": "\n\n".join([NETWORK_HEAD.format(version=__version__), *functions]),
    }


def metadata(bundle: Bundle) -> dict[str, Any]:
    """configs/metadata.json, as MONAI's schema of July 2024 wants it."""
    study, record = bundle.study, read_record(bundle.run)
    rows, columns = study.preprocessing.image_size
    names = {str(number): name for number, name in enumerate(study.task.classes)}
    tensor = {"dtype": "float32", "is_patch_data": False, "value_range": []}
    image = {**tensor, "type": "image", "format": "magnitude", "num_channels": 1}
    image |= {"modality": ", ".join(study.cohort.modality) or "n/a", "spatial_shape": [rows, columns]}
    pred = {**tensor, "type": "probabilities", "format": "classes", "num_channels": len(names)}
    pred |= {"spatial_shape": [], "channel_def": names}
    return {
        "schema": SCHEMA,
        "version": f"{study.version}.0.0",
        "changelog": {f"{study.version}.0.0": f"model {bundle.model} of the run {record['run']}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            name: version(name) for name in ("pytorch-ignite", "fire", "pydicom", "pillow")
        },
        "name": f"{study.name} {bundle.model}",
        "task": f"Classification of images: {', '.join(study.task.classes)}",
        "description": study.statement,
        "authors": FOR_AUTHORS,
        "copyright": FOR_AUTHORS,
        "intended_use": "Research. It is no medical device.",
        "data_type": "dicom, png or npy",
        "fedai": {"version": __version__, "study_sha256": study.sha256, "sha256": _sha256(bundle)},
        "network_data_format": {
            "inputs": {"image": {**image, "channel_def": {"0": "image"}}},
            "outputs": {"pred": pred},
            "post_processed_outputs": {"pred": {**pred, "value_range": [0, 1]}},
        },
    }


def _sha256(bundle: Bundle) -> str:
    return find_model(bundle.run, bundle.model).sha256


def _readme(bundle: Bundle) -> str:
    classes = ", ".join(bundle.study.task.classes)
    card = markdown(card_of(bundle.run, bundle.model)) if (bundle.run / "judgement.json").is_file() else ""
    text = importlib.resources.files("fedai").joinpath("templates/bundle.md").read_text("utf-8")
    return text.format(study=bundle.study.name, model=bundle.model, classes=classes, card=card)


def compare_with_monai(bundle: Bundle, folder: Path) -> float:
    """Let MONAI score sample images with the bundle in `folder`; gives the largest distance from the
    network's own scores. Raises TrainingError where MONAI can't run it, or scores otherwise.
    """
    with TemporaryDirectory() as scratch:
        samples, scores = Path(scratch) / "images", Path(scratch) / "scores"
        samples.mkdir()
        images = draw_samples()
        for number, image in enumerate(images):
            np.save(samples / f"{number:02}.npy", image, allow_pickle=False)
        run_bundle(folder, samples, scores)
        found = np.array(list(read_predictions(scores / "predictions.csv").values()))
    apart = float(np.abs(found - _own_scores(bundle, images)).max())
    if not apart <= MOST_APART:
        told = f"the bundle's scores are up to {apart:.2g} off"
        raise TrainingError(told, hint="nothing was written; please report this")
    return apart


def draw_samples() -> list[NDArray[np.float32]]:
    """Images of several shapes, float32; one before the last without contrast, the last with hardly any."""
    rng = np.random.default_rng(0)
    images = [rng.gamma(2.0, 300.0, shape).astype(np.float32) for shape in SAMPLES]
    images[-2][:] = 7
    images[-1][:] = 7
    images[-1][3, 4] = 4000
    return images


def _own_scores(bundle: Bundle, images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    settings = bundle.study.preprocessing
    bounds = settings.lower_percentile, settings.upper_percentile
    batch = np.stack([prepare(image, settings.image_size, *bounds) for image in images])[:, None]
    with torch.inference_mode():
        scores: NDArray[np.float32] = bundle.scorer(torch.from_numpy(batch)).numpy()
    return scores


def run_bundle(folder: Path, images: Path, out: Path) -> None:
    """`python -m monai.bundle run` over a folder of images. Raises TrainingError with what went wrong."""
    words = [
        sys.executable,
        *RUN,
        "--dataset_dir",
        str(images.absolute()),
        "--output_dir",
        str(out.absolute()),
    ]
    environment: Mapping[str, str] = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, timeout=RUN_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise TrainingError(f"MONAI took more than {RUN_S} s", hint="nothing was written") from None
    if done.returncode:
        told = CAUSE.search(done.stderr) or re.search(r"\S.*$", done.stderr)
        raise TrainingError(
            f"MONAI can't run the bundle: {told[0] if told else 'it said nothing'}",
            hint="nothing was written",
        )


def read_predictions(path: Path) -> dict[str, list[float]]:
    """File name -> score of each class, as MONAI's ClassificationSaver wrote them."""
    with path.open(newline="", encoding="utf-8") as file:
        return {Path(row[0]).name: [float(score) for score in row[1:]] for row in csv.reader(file)}
