"""Both sides on the same pictures, one block after the other; only the side that is measured is up."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.federation import Federation
from benchmarks.processes import machine
from benchmarks.round_overhead import fedai_side, flower_side
from benchmarks.round_overhead.figures import Round, blocks, summary, table
from fedai.study import read_study

STUDY = Path(__file__).parent / "study.yaml"


@dataclass(frozen=True)
class Bench:
    """The same pictures for every side: fedai's homes, its studies by rounds, arrays and keys by site."""

    federation: Federation
    studies: dict[int, Path]
    arrays: dict[str, Path]
    keys: dict[str, Path]

    def link(self, folder: Path) -> flower_side.Link:
        """A SuperLink of Flower's own in a new folder."""
        return flower_side.Link(folder, self.federation.server / "pki", self.keys, self.arrays)


def measure_both(folder: Path, rounds: int, count: int) -> tuple[dict[str, object], list[str]]:
    """What `--json` prints, and the lines of the table."""
    sizes = blocks(rounds, count)
    bench = set_up(folder, sizes)
    ours: list[Round] = []
    theirs: list[Round] = []
    for number, size in enumerate(sizes):
        ours += tell("fedai", fedai_side.measure(bench.federation, bench.studies[size]))
        theirs += tell("Flower", flower_side.measure(bench.link(folder / f"flower-{number}"), size))
    described = machine()
    return {**summary(ours, theirs), "machine": described}, [*table(ours, theirs), described]


def write_study(folder: Path, rounds: int) -> Path:
    """The study with so many rounds."""
    study = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    study["name"] = f"round-overhead-{rounds}"
    study["training"]["rounds"] = rounds
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"study-{rounds}.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    return path


def set_up(folder: Path, sizes: list[int]) -> Bench:
    """A federation of fedai with a study for each size of a block, and what the other sides take from it."""
    studies = {size: write_study(folder, size) for size in set(sizes)}
    federation = Federation(folder / "fedai", read_study(STUDY).sites)
    exports = fedai_side.write_exports(federation.folder / "exports", federation.sites)
    federation.set_up(exports, list(studies.values()))
    arrays = fedai_side.write_arrays(federation, studies[sizes[0]], folder / "arrays")
    keys = {
        site: flower_side.write_keys(
            federation.home(site).joinpath("keys", "agent.key"), folder / "keys", site
        )
        for site in federation.sites
    }
    return Bench(federation, studies, arrays, keys)


def tell(side: str, rounds: list[Round]) -> list[Round]:
    """Tell the rounds on stderr, and give them."""
    spelled = ", ".join(f"{one.wall:.2f} ({one.computing:.2f})" for one in rounds)
    print(f"{side}: rounds in s, of which computing: {spelled}", file=sys.stderr)
    return rounds
