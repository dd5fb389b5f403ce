"""Runs in NVFLARE's environment, at a site: its Client API around the same computing as at Flower's sites.

`site.py --app FOLDER --data FOLDER --out FOLDER`: where `round_overhead_app` lies, where SITE.npz is, and
where SITE.jsonl is written, a line a round. Network and images are there before the first task.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import nvflare.client as flare
import torch

WEIGHTS = "numpy_key"  # as nvflare.app_common.np.constants calls a model of one array


def main() -> None:
    """Evaluate the weights that come, train one epoch, send both."""
    options = _options()
    sys.path.insert(0, str(options.app))
    from round_overhead_app import work  # type: ignore[import-not-found]

    torch.set_num_threads(1)
    flare.init()
    site = flare.get_site_name()
    data = options.data / f"{site}.npz"
    training, validation, network = work.load(data, "train"), work.load(data, "validation"), work.build()
    with (options.out / f"{site}.jsonl").open("w", encoding="utf-8") as told:
        while flare.is_running():
            task = flare.receive()
            if task is None:
                break
            reply, seconds = _answer(work, network, task.params[WEIGHTS], training, validation)
            told.write(json.dumps({"round": task.current_round, "seconds": seconds}) + "\n")
            told.flush()
            flare.send(reply)


def _answer(work: Any, network: Any, weights: Any, training: Any, validation: Any) -> tuple[Any, float]:
    """The answer, and the seconds of computing."""
    started = time.perf_counter()
    work.restore(weights, network)
    loss, accuracy = work.evaluate(network, *validation)
    train_loss = work.train(network, *training)
    params = {WEIGHTS: work.flatten(network)}
    seconds = time.perf_counter() - started
    metrics = {"loss": loss, "accuracy": accuracy, "train_loss": train_loss}
    meta = {"NUM_STEPS_CURRENT_ROUND": len(training[1])}
    return flare.FLModel(params=params, metrics=metrics, meta=meta), seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("app", "data", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
