"""`python -m benchmarks.simulation`: many simulated sites, ours and pfl's simulator, in a process each."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environments import environment
from benchmarks.processes import one_thread
from fedai.demo.crowd import invent_sites
from fedai.study import Study, read_study

CACHE = Path.home() / ".cache" / "fedai-benchmarks" / "simulation"
STUDY = Path(__file__).with_name("study.yaml")
PEER = Path(__file__).with_name("pfl_side.py")
REQUIREMENT = "pfl==0.6.0"
LONGEST_S = 600.0
MOST_GROWTH = 1.2  # of memory, and of CPU time a visit, from the fewest sites to the most


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where the most sites take under ten minutes, memory is flat and time linear in sites; else 1."""
    options = _parser().parse_args(arguments)
    study = read_study(STUDY)
    training = study.training.model_copy(update={"rounds": options.rounds})
    study = study.model_copy(update={"training": training})
    python, why = environment(options.environments, REQUIREMENT, ("scipy",))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in sorted(options.sites):
            rows.append(row("fedai", number, study, _ours(study, number, options.cases, folder)))
            print(_line(rows[-1]), file=sys.stderr, flush=True)
            if python is not None:
                theirs = _theirs(python, study, number, options.cases, Path(folder))
                rows.append(row("pfl", number, study, theirs))
                print(_line(rows[-1]), file=sys.stderr, flush=True)
    told = {"rows": rows, "not_measured": why, **verdict(rows)}
    print(json.dumps(told, indent=1) if options.json else "\n".join(_table(told)))
    return 0 if told["met"] else 1


def _ours(study: Study, number: int, cases: int, folder: str) -> dict[str, Any]:
    words = [str(word) for word in (STUDY, number, cases, study.training.rounds, folder)]
    return _told([sys.executable, "-m", "benchmarks.simulation.ours", *words])


def _theirs(python: Path, study: Study, number: int, cases: int, folder: Path) -> dict[str, Any]:
    """The same sites' images, in one file."""
    training = study.training
    network = study.network.model_dump(exclude={"name", "normalization"})
    _, sites = invent_sites(study, number, cases, folder)
    drawn = [site.cases("train") for site in sites]
    images, labels = np.stack([one.images for one in drawn]), np.stack([one.labels for one in drawn])
    np.savez(folder / "sites.npz", images=images, labels=labels)
    facts = (training.rounds, training.batch_size, training.optimizer.learning_rate, json.dumps(network))
    return _told([str(python), str(PEER), str(folder / "sites.npz"), *map(str, facts)])


def _told(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread(), check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
    facts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return facts


def row(side: str, number: int, study: Study, facts: dict[str, Any]) -> dict[str, Any]:
    """A line of the table: of so many sites, in all and by visit of a site."""
    visits = number * study.training.rounds
    return {
        "side": side,
        "sites": number,
        "rounds": study.training.rounds,
        "seconds": facts["seconds"],
        "ms_a_visit": 1000 * facts["seconds"] / visits,
        "cpu_ms_a_visit": 1000 * facts["cpu"] / visits,
        "peak": facts["peak"],
    }


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Growth from the fewest sites to the most, and whether the targets are met."""
    ours = [row for row in rows if row["side"] == "fedai"]
    few, many = ours[0], ours[-1]
    growth = {key: many[key] / few[key] for key in ("peak", "cpu_ms_a_visit")}
    return {"growth": growth, "met": many["seconds"] < LONGEST_S and max(growth.values()) <= MOST_GROWTH}


def _line(row: dict[str, Any]) -> str:
    times = f"{row['seconds']:9.1f}{row['ms_a_visit']:12.2f}{row['cpu_ms_a_visit']:8.2f}"
    memory = f"{row['peak'] / 1e6:10.0f}{row['peak'] / 1e6 / row['sites']:12.2f}"
    return f"{row['side']:7}{row['sites']:6}{row['rounds']:8}{times}{memory}"


def _table(told: dict[str, Any]) -> list[str]:
    times = f"{'seconds':>9}{'ms a visit':>12}{'CPU ms':>8}"
    memory, cpu = (told["growth"][key] for key in ("peak", "cpu_ms_a_visit"))
    return [
        f"{'':7}{'sites':>6}{'rounds':>8}{times}{'peak MB':>10}{'MB a site':>12}",
        *map(_line, told["rows"]),
        *([f"pfl not measured: {told['not_measured']}"] if told["not_measured"] else []),
        f"from the fewest sites to the most: memory x {memory:.2f}, CPU time a visit x {cpu:.2f} "
        f"(at most {MOST_GROWTH}); at most {LONGEST_S:.0f} s",
        "met" if told["met"] else "not met",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--sites", type=int, nargs="+", default=[100, 1000], help="how many (100 1000)")
    parser.add_argument("--cases", type=int, default=20, help="of each site (20)")
    parser.add_argument("--rounds", type=int, default=20, help="in each of which all sites train (20)")
    parser.add_argument(
        "--environments",
        type=Path,
        default=CACHE,
        metavar="FOLDER",
        help=f"where pfl is installed ({CACHE})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
