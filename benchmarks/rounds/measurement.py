"""All sides on the same pictures, block after block; only the side that is measured is up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.environments import environment
from benchmarks.processes import machine
from benchmarks.round_overhead import fedai_side, flower_side
from benchmarks.round_overhead.figures import Round, blocks
from benchmarks.round_overhead.measurement import Bench, set_up, tell
from benchmarks.rounds import nvflare_side
from benchmarks.rounds.breakdown import Rest, rest_of, rest_table
from benchmarks.rounds.figures import OURS, summary, table

Side = Callable[[Path, int], list[Round]]
SIDES = {OURS: "fedai", "flower": "Flower", "simulator": "NVFLARE simulator", "poc": "NVFLARE POC"}


def measure_all(
    folder: Path, rounds: int, count: int, wanted: list[str], environments: Path
) -> tuple[dict[str, object], list[str]]:
    """What `--json` prints, and the lines of the table."""
    bench, sizes = set_up(folder, blocks(rounds, count)), blocks(rounds, count)
    sides, why = _sides(bench, wanted, environments)
    found: dict[str, list[Round]] = {side: [] for side in sides}
    rests: list[Rest] = []
    for number, size in enumerate(sizes):
        for side, measure in sides.items():
            found[side] += tell(SIDES[side], measure(folder / f"{side}-{number}", size))
        rests += rest_of(bench.federation)
    described = machine()
    told = {
        **summary(found),
        "parts": [vars(rest) for rest in rests],
        "not_measured": why,
        "machine": described,
    }
    missing = [f"NVFLARE not measured: {why}"] if why else []
    named = {SIDES[side]: of for side, of in found.items()}
    return told, [*table(named), *missing, *rest_table(rests), described]


def _sides(bench: Bench, wanted: list[str], environments: Path) -> tuple[dict[str, Side], str]:
    """How each wanted side is measured, fedai first; why NVFLARE isn't, where it can't be installed."""

    def ours(folder: Path, size: int) -> list[Round]:
        return fedai_side.measure(bench.federation, bench.studies[size])

    def flower(folder: Path, size: int) -> list[Round]:
        return flower_side.measure(bench.link(folder), size)

    sides: dict[str, Side] = {OURS: ours, "flower": flower}
    why = ""
    if {"simulator", "poc"} & set(wanted):
        print("NVFLARE: its environment is made, where it isn't there", file=sys.stderr)
        python, why = environment(environments, nvflare_side.REQUIREMENT)
        if python is not None:
            data = next(iter(bench.arrays.values())).parent
            nvflare = nvflare_side.Nvflare(python, bench.federation.sites, data)
            sides["simulator"] = partial(nvflare_side.simulate, nvflare)
            sides["poc"] = partial(nvflare_side.deploy, nvflare)
    return {side: measure for side, measure in sides.items() if side in {OURS, *wanted}}, why
