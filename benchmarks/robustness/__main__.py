"""`python -m benchmarks.robustness`: each strategy against a site that lies, on invented radiographs."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks.robustness.liars import ATTACKS
from fedai.demo.crowd import invent_sites
from fedai.errors import FedaiError
from fedai.simulate import simulate
from fedai.study import Study

STRATEGIES: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "Median": {},
    "TrimmedMean": {"trim": 1},
    "Krum": {"liars": 1},
    "Multi-Krum": {"name": "Krum", "liars": 1, "keep": 4},
    "Bulyan": {"liars": 1},
    "GeometricMedian": {},
}
SITES = 7  # Bulyan needs 4 liars + 3


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where no robust strategy loses more than `--margin` AUROC to any attack, else 1."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, attack in product(options.strategy or STRATEGIES, ATTACKS):
            seeds = range(1, options.seeds + 1)
            found = [run(name, attack, seed, options, Path(folder)) for seed in seeds]
            rows.append({"strategy": name, "attack": attack, **_medians(found)})
            print(_line(rows[-1]), file=sys.stderr, flush=True)
    losses = losses_of(rows)
    held = all(loss <= options.margin for name, loss in losses.items() if name != "FedAvg")
    told = {"sites": SITES, "rows": rows, "largest_loss": losses, "margin": options.margin, "held": held}
    print(json.dumps(told, indent=1) if options.json else "\n".join(_table(told)))
    return 0 if held else 1


def run(name: str, attack: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Accuracy and AUROC on all sites' test cases, after all rounds with one liar among seven."""
    study = study_of(name, seed, options)
    named, sites = invent_sites(study, SITES, options.cases, folder)
    lying, tamper = ATTACKS[attack](sites, [sites[-1].name], len(study.task.classes))
    try:
        done = simulate(named, lying, folder / "sites", tamper=tamper)
    except FedaiError:  # the training diverged: no better than a coin
        return {"accuracy": 0.5, "auroc": 0.5, "diverged": 1.0}
    calls = done.pooled.calls.counts[0]
    return {
        "accuracy": float(calls[[0, 2]].sum() / calls.sum()),
        "auroc": float(done.pooled.histogram.auroc()[0]),
        "diverged": 0.0,
    }


def study_of(name: str, seed: int, options: argparse.Namespace) -> Study:
    """The study of the demo's kind, small enough for minutes."""
    strategy = {"name": name, **STRATEGIES[name]}
    return Study.model_validate(
        {
            "name": "robustness",
            "purpose": "What sites that lie do to each strategy.",
            "task": {"classes": ["clear", "nodule"]},
            "sites": [f"site-{number:04d}" for number in range(1, SITES + 1)],
            "preprocessing": {"image_size": [options.side, options.side]},
            "network": {"name": "ResNet", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 32, 64],
                        "conv1_t_size": 3, "conv1_t_stride": 1, "normalization": "group"},
            "training": {"rounds": options.rounds, "local_epochs": 3, "batch_size": 10, "seed": seed,
                         "optimizer": {"name": "AdamW", "learning_rate": 4e-3}},
            "strategy": strategy,
            "rounds": {"quorum": SITES},
        }
    )  # fmt: skip


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    medians = {key: statistics.median(one[key] for one in found) for key in ("accuracy", "auroc")}
    return {**medians, "diverged": sum(one["diverged"] for one in found)}


def losses_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """By strategy: how much AUROC the worst attack costs, against the same strategy without one."""
    before = {row["strategy"]: row["auroc"] for row in rows if row["attack"] == "none"}
    return {
        name: max(auroc - row["auroc"] for row in rows if row["strategy"] == name)
        for name, auroc in before.items()
    }


def _line(row: dict[str, Any]) -> str:
    numbers = f"{row['accuracy']:>9.3f}{row['auroc']:>8.3f}{row['diverged']:>9.0f}"
    return f"{row['strategy']:17}{row['attack']:16}{numbers}"


def _table(told: dict[str, Any]) -> list[str]:
    liar = f"one liar of {told['sites']}"
    losses = [f"{name}: at most {loss:.3f} AUROC lost" for name, loss in told["largest_loss"].items()]
    verdict = "held" if told["held"] else "not held"
    return [
        f"{'strategy':17}{liar:16}{'accuracy':>9}{'AUROC':>8}{'diverged':>9}",
        *map(_line, told["rows"]),
        *losses,
        f"{verdict}: margin {told['margin']}, FedAvg apart",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness", description=__doc__)
    parser.add_argument("--strategy", action="append", choices=STRATEGIES, help="repeatable (all)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of three local epochs (7)")
    parser.add_argument("--cases", type=int, default=60, help="training cases of each site (60)")
    parser.add_argument("--side", type=int, default=32, help="pixels of an image's side (32)")
    parser.add_argument("--seeds", type=int, default=1, help="draws of everything; the median is told (1)")
    parser.add_argument("--margin", type=float, default=0.1, help="AUROC that an attack may cost (0.1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
