"""Models of an ended run, and their way out of fedai: a file that other software loads.

An export is loaded back and gives the same scores on sample images, or there is none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedai.checkpoint import load_checkpoint
from fedai.errors import ConfigError, TrainingError
from fedai.record import read_record
from fedai.study import Study

if TYPE_CHECKING:
    from torch import Tensor, nn

SAMPLES = 16
MOST_APART = 1e-5  # scores of the export and of the network
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Model:
    """A checkpoint of a run, called as in a comparison (federated, local:SITE, a reference) or round-0003."""

    name: str
    path: Path
    sha256: str
    facts: dict[str, Any]


def models_of(folder: Path) -> list[Model]:
    """The run's models: federated (the last round's), local ones, references, and each round's checkpoint."""
    rounds = sorted(folder.glob(f"round-*/{WEIGHTS}"))
    alone = sorted(folder.glob(f"local-*/{WEIGHTS}"))
    named = {"federated": rounds[-1]} if rounds else {}
    named |= {f"local:{path.parent.name.removeprefix('local-')}": path for path in alone}
    named |= {path.stem: path for path in sorted((folder / "references").glob("*.safetensors"))}
    named |= {path.parent.name: path for path in rounds}
    return [
        Model(name, path, hashlib.sha256(path.read_bytes()).hexdigest(), _facts(path))
        for name, path in named.items()
    ]


def _facts(path: Path) -> dict[str, Any]:
    manifest = path.parent / "manifest.json" if path.name == WEIGHTS else path.with_suffix(".manifest.json")
    return dict(json.loads(manifest.read_text(encoding="utf-8"))) if manifest.is_file() else {}


def find_model(folder: Path, name: str) -> Model:
    """Raises ConfigError where the run has no such model."""
    found = {model.name: model for model in models_of(folder)}
    if name not in found:
        raise ConfigError(f"the run has no model {name!r}", hint=f"models: {', '.join(found) or 'none'}")
    return found[name]


def export_torchscript(folder: Path, name: str, out: Path) -> float:
    """Write a model as TorchScript: from uint8 or float32 [N, 1, rows, columns] (windowed and resized as the
    study says) to softmax scores float32 [N, C]. Gives a score's largest distance from the network's own.

    Raises ConfigError where the run's strategy leaves layers at the sites, TrainingError where the file that
    was written scores otherwise; then there is none.
    """
    import torch

    study, scorer = _scorer(folder, name)
    rng, size = np.random.default_rng(0), study.preprocessing.image_size
    samples = torch.from_numpy(rng.integers(0, 256, (SAMPLES, 1, *size), np.uint8))
    samples[0] = 0  # an image without any contrast
    partial = out.with_name(out.name + ".partial")
    with torch.inference_mode():
        expected: Tensor = scorer(samples)
        torch.jit.trace(scorer, samples[:2]).save(str(partial))  # type: ignore[no-untyped-call]
        again = torch.jit.load(str(partial))(samples)  # type: ignore[no-untyped-call]
    apart = float((again - expected).abs().max())
    if not apart <= MOST_APART:
        partial.unlink()
        told = f"the exported model's scores are up to {apart:.2g} off"
        raise TrainingError(told, hint="nothing was written; please report this")
    partial.replace(out)
    return apart


def _scorer(folder: Path, name: str) -> tuple[Study, nn.Module]:
    from fedai.tasks.classification import build_network
    from fedai.weights import layout_of, unpack

    study = Study.model_validate(read_record(folder)["study"])
    network = build_network(study)
    layout = study.strategy.shared_layout(network)
    if layout.sizes() != layout_of(network).sizes():
        raise ConfigError(
            f"{study.strategy.name} leaves layers at each site: the server has no whole model",
            hint="only a site has one",
        )
    unpack(load_checkpoint(find_model(folder, name).path, layout), network, layout)
    return study, scorer_of(network)


def scorer_of(network: nn.Module) -> nn.Module:
    """The network with what comes before and after it: each image to mean 0 and deviation 1, then softmax."""
    from torch import nn

    class Scorer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            batch = images.float()
            mean = batch.mean(dim=(1, 2, 3), keepdim=True)
            deviation = batch.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp_min(1.0)
            scores: Tensor = self.network((batch - mean) / deviation).softmax(dim=1)
            return scores

    return Scorer().eval()
