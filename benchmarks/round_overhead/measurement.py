"""Both sides on the same pictures, one block after the other; only the side that is measured is up."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from benchmarks.federation import Federation
from benchmarks.processes import machine
from benchmarks.round_overhead import fedai_side, flower_side
from benchmarks.round_overhead.figures import Round, blocks, summary, table
from fedai.study import read_study

STUDY = Path(__file__).parent / "study.yaml"


def measure_both(folder: Path, rounds: int, count: int) -> tuple[dict[str, object], list[str]]:
    """What `--json` prints, and the lines of the table."""
    sizes = blocks(rounds, count)
    studies = {size: _write_study(folder, size) for size in set(sizes)}
    federation = Federation(folder / "fedai", read_study(STUDY).sites)
    _set_up(federation, studies)
    arrays = fedai_side.write_arrays(federation, studies[sizes[0]], folder / "arrays")
    keys = {
        site: flower_side.write_keys(
            federation.home(site).joinpath("keys", "agent.key"), folder / "keys", site
        )
        for site in federation.sites
    }
    ours: list[Round] = []
    theirs: list[Round] = []
    for number, size in enumerate(sizes):
        ours += _told("fedai", fedai_side.measure(federation, studies[size]))
        link = flower_side.Link(folder / f"flower-{number}", federation.server / "pki", keys, arrays)
        theirs += _told("Flower", flower_side.measure(link, size))
    described = machine()
    return {**summary(ours, theirs), "machine": described}, [*table(ours, theirs), described]


def _write_study(folder: Path, rounds: int) -> Path:
    study = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    study["name"] = f"round-overhead-{rounds}"
    study["training"]["rounds"] = rounds
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"study-{rounds}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def _set_up(federation: Federation, studies: dict[int, Path]) -> None:
    exports = fedai_side.write_exports(federation.folder / "exports", federation.sites)
    federation.set_up(exports, list(studies.values()))


def _told(side: str, rounds: list[Round]) -> list[Round]:
    """Progress on stderr."""
    spelled = ", ".join(f"{one.wall:.2f} ({one.computing:.2f})" for one in rounds)
    print(f"{side}: rounds in s, of which computing: {spelled}", file=sys.stderr)
    return rounds
