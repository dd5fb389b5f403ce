"""Runs in NVFLARE's environment: FedAvg by NVFLARE's own recipe, in its simulator or sent to a POC server.

`job.py simulate|submit --folder FOLDER --app FOLDER --data FOLDER --rounds N --sites A,B,C [--admin FOLDER]`.
The folder gets `times/`, a file for each site; the simulator's files lie in it, too.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

NAME = "round-overhead"


def main() -> int:
    """Exit 0 where the job has ended as it should."""
    options = _options()
    recipe = _recipe(options)
    return (_simulate if options.how == "simulate" else _submit)(recipe, options)


def _recipe(options: argparse.Namespace) -> Any:
    from nvflare.app_common.np.recipes import NumpyFedAvgRecipe

    sys.path.insert(0, str(options.app))
    from round_overhead_app import work  # type: ignore[import-not-found]

    (options.folder / "times").mkdir(parents=True, exist_ok=True)
    start = options.folder / "start.npy"
    np.save(start, work.flatten(work.build()))
    return NumpyFedAvgRecipe(
        name=NAME,
        initial_ckpt=str(start),
        min_clients=len(options.sites),
        num_rounds=options.rounds,
        train_script=str(Path(__file__).with_name("site.py")),
        train_args=f"--app {options.app} --data {options.data} --out {options.folder / 'times'}",
    )


def _simulate(recipe: Any, options: argparse.Namespace) -> int:
    from nvflare.recipe import SimEnv

    recipe.run(SimEnv(clients=options.sites, workspace_root=str(options.folder / "simulator")))
    return 0


def _submit(recipe: Any, options: argparse.Namespace) -> int:
    """Send the job to the server of a POC, and wait for its end."""
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    recipe.export(str(options.folder / "job"))
    session = new_secure_session(options.admin.name, str(options.admin), timeout=60.0)
    try:
        job = session.submit_job(str(options.folder / "job" / NAME))
        print(job, flush=True)
        session.monitor_job(job)
        status = str(session.get_job_meta(job).get("status"))
    finally:
        session.close()
    print(status, flush=True)
    return 0 if status == "FINISHED:COMPLETED" else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=("simulate", "submit"))
    for name in ("folder", "app", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--sites", type=lambda text: text.split(","), required=True)
    parser.add_argument("--admin", type=Path, help="the administrator's startup kit")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
