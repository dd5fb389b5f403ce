"""`python -m benchmarks.simulation.ours STUDY SITES CASES ROUNDS FOLDER`: time and memory of a simulation."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

from fedai.demo.crowd import invent_sites
from fedai.simulate import RoundClosed, simulate
from fedai.study import read_study


def main() -> None:
    """To the end of the last round: drawing the sites' cases is in it, the pool and judging aren't."""
    torch.set_num_threads(1)
    (number, cases, rounds), folder = map(int, sys.argv[2:5]), Path(sys.argv[5])
    study, sites = invent_sites(read_study(Path(sys.argv[1])), number, cases, folder)
    study = study.model_copy(update={"training": study.training.model_copy(update={"rounds": rounds})})
    begun, cpu, marks = time.monotonic(), time.process_time(), [(0.0, 0.0)]

    def tell(_: RoundClosed) -> None:
        marks.append((time.monotonic() - begun, time.process_time() - cpu))

    simulate(study, sites, folder / "sites", tell=tell)
    told = dict(zip(("seconds", "cpu"), marks[-1], strict=True))
    print(json.dumps({**told, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
