"""The folder of an invented run, with checkpoints that load."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from fedai.checkpoint import save_checkpoint
from fedai.study import Study
from fedai.tasks.classification import build_network
from fedai.weights import pack


def write_run(folder: Path, study: Study) -> Path:
    """The folder of a run of two rounds, with one site's own model and a reference."""
    network = build_network(study)
    layout = study.strategy.shared_layout(network)
    for number, name in enumerate(("round-0001", "round-0002", "local-north", "ref"), start=1):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.full_like(parameter, 0.01 * number))
        save_checkpoint(folder / name, pack(network, layout), layout, study=study.sha256, cases=number)
    (folder / "references").mkdir()
    (folder / "ref" / "weights.safetensors").rename(folder / "references" / "centralised.safetensors")
    facts = {"run": folder.name, "state": "finished", "study": json.loads(study.canonical())}
    (folder / "record.json").write_text(json.dumps(facts))
    return folder
