"""Models of an ended run, and their way out of fedai: a file that other software loads.

An export is loaded back and gives the same scores on sample images, or there is none.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast
from zipfile import ZipFile

import numpy as np

from fedai.checkpoint import load_checkpoint
from fedai.errors import ConfigError, TrainingError
from fedai.record import final_of, read_record
from fedai.study import Study

if TYPE_CHECKING:
    from torch import Tensor, nn

SAMPLES = 16
MOST_APART = 1e-5  # scores of the export and of the network
ONNX_OPSET = 17
WEIGHTS = "weights.safetensors"
WHERE_FROM = ".debug_pkl"  # of a TorchScript file: from which file and line each operation came
UNTRAINED = "round-0000"  # the first weights, which nobody has trained


@dataclass(frozen=True)
class Model:
    """A checkpoint of a run, called as in a comparison (federated, local:SITE, a reference) or round-0003."""

    name: str
    path: Path
    sha256: str
    facts: dict[str, Any]


def models_of(folder: Path) -> list[Model]:
    """The run's models: federated (the round's that was chosen), local ones, references, and each round's
    checkpoint.
    """
    rounds = sorted(folder.glob(f"round-*/{WEIGHTS}"))
    alone = sorted(folder.glob(f"local-*/{WEIGHTS}"))
    trained = [path for path in rounds if path.parent.name != UNTRAINED]
    named = {"federated": _judged(folder, trained)} if trained else {}
    named |= {f"local:{path.parent.name.removeprefix('local-')}": path for path in alone}
    named |= {path.stem: path for path in sorted((folder / "references").glob("*.safetensors"))}
    named |= {path.parent.name: path for path in rounds}
    return [
        Model(name, path, hashlib.sha256(path.read_bytes()).hexdigest(), _facts(path))
        for name, path in named.items()
    ]


def _judged(folder: Path, rounds: list[Path]) -> Path:
    """The checkpoint that was chosen; where nothing was, the last. Raises ConfigError where it is gone."""
    record = read_record(folder) if (folder / "record.json").is_file() else {}
    if not record.get("chosen"):
        return rounds[-1]
    chosen = folder / f"round-{final_of(record)[0]:04d}" / WEIGHTS
    if chosen not in rounds:
        raise ConfigError(f"{chosen} is not there, though the run chose it", hint="restore the run's folder")
    return chosen


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

    study, scorer = load_scorer(folder, name)
    samples = _samples(study)
    partial = out.with_name(out.name + ".partial")
    with torch.inference_mode():
        torch.jit.trace(scorer, samples[:2]).save(str(partial))  # type: ignore[no-untyped-call]
        _leave_out_where_from(partial)
        again = torch.jit.load(str(partial))(samples)  # type: ignore[no-untyped-call]
        return _hand_over(partial, out, again - scorer(samples))


def _leave_out_where_from(path: Path) -> None:
    """Write a TorchScript file anew without the paths of this machine's Python, which torch always saves."""
    without = path.with_name(path.name + ".without")
    with ZipFile(path) as whole, ZipFile(without, "w") as left:
        for member in whole.infolist():
            if not member.filename.endswith(WHERE_FROM):
                left.writestr(member, whole.read(member))
    without.replace(path)


def export_onnx(folder: Path, name: str, out: Path) -> float:
    """Write a model as ONNX: from `images` float32 [N, 1, rows, columns] (windowed and resized as the study
    says, 0 to 255) to `scores`, softmax, float32 [N, C]; any N. Gives a score's largest distance from the
    network's own, as onnxruntime computes it.

    Raises what `export_torchscript` raises, and ConfigError where onnx or onnxruntime isn't installed.
    """
    import torch

    onnxruntime = _onnxruntime()
    study, scorer = load_scorer(folder, name)
    samples = _samples(study).float()
    partial = out.with_name(out.name + ".partial")
    try:
        _write_onnx(scorer, samples[:2], partial)
        session = onnxruntime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    (again,) = session.run(["scores"], {"images": samples.numpy()})
    with torch.inference_mode():
        return _hand_over(partial, out, torch.from_numpy(again) - scorer(samples))


def _onnxruntime() -> ModuleType:
    try:
        import onnx  # noqa: F401  the exporter of torch wants it
        import onnxruntime
    except ImportError as error:
        hint = "pip install 'fedai-radiology[onnx]'"
        raise ConfigError(f"{error.name} is not installed", hint=hint) from None
    return cast(ModuleType, onnxruntime)


def _write_onnx(scorer: nn.Module, samples: Tensor, path: Path) -> None:
    """With the exporter over TorchScript: the newer one needs onnxscript, for nothing that is needed here."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is a newer one
        torch.onnx.export(
            scorer,
            (samples,),
            str(path),
            dynamo=False,
            opset_version=ONNX_OPSET,
            input_names=["images"],
            output_names=["scores"],
            dynamic_axes={"images": {0: "N"}, "scores": {0: "N"}},
        )


def _samples(study: Study) -> Tensor:
    """Noise as a site prepares images, uint8 [N, 1, rows, columns]; the first without any contrast."""
    import torch

    rng, size = np.random.default_rng(0), study.preprocessing.image_size
    samples = torch.from_numpy(rng.integers(0, 256, (SAMPLES, 1, *size), np.uint8))
    samples[0] = 0
    return samples


def _hand_over(partial: Path, out: Path, difference: Tensor) -> float:
    """Give the file its name if its scores are the network's; raise TrainingError, and delete it, if not."""
    apart = float(difference.abs().max())
    if not apart <= MOST_APART:
        partial.unlink()
        told = f"the exported model's scores are up to {apart:.2g} off"
        raise TrainingError(told, hint="nothing was written; please report this")
    partial.replace(out)
    return apart


def load_scorer(folder: Path, name: str) -> tuple[Study, nn.Module]:
    """A run's study, and its model from prepared images to scores (`scorer_of`). Raises ConfigError where the
    run's strategy leaves layers at the sites.
    """
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
