"""`python -m benchmarks.simulation.ours STUDY SITES CASES ROUNDS FOLDER`: seconds and memory of a simulation."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

from fedai.demo.crowd import invent_sites
from fedai.simulate import simulate
from fedai.study import read_study


def main() -> None:
    """Drawing the pool isn't in it, drawing a site's cases is; in the CPU's time so is the judging."""
    torch.set_num_threads(1)
    (number, cases, rounds), folder = map(int, sys.argv[2:5]), Path(sys.argv[5])
    study, sites = invent_sites(read_study(Path(sys.argv[1])), number, cases, folder)
    study = study.model_copy(update={"training": study.training.model_copy(update={"rounds": rounds})})
    cpu = time.process_time()
    done = simulate(study, sites, folder / "sites")
    told = {"seconds": sum(closed.seconds for closed in done.rounds), "cpu": time.process_time() - cpu}
    print(json.dumps({**told, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
