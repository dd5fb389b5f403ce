"""At the server: Flower's FedAvg as it is, and the time at the end of each round."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from round_overhead_app import records, work

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg and write {"closed": [seconds], "train": [seconds], "evaluate": [seconds]} to `out`."""
    sites = int(context.run_config["sites"])
    told: dict[str, list[float]] = {"closed": [], "train": [], "evaluate": []}

    def slowest(kind: str) -> Callable[[list[RecordDict], str], MetricRecord]:
        def aggregate(replies: list[RecordDict], weighted_by: str) -> MetricRecord:
            told[kind].append(max(reply["metrics"]["seconds"] for reply in replies))
            if len(replies) != sites:
                raise RuntimeError(f"{len(replies)} of {sites} sites answered")
            return MetricRecord({"seconds": told[kind][-1]})

        return aggregate

    def note_time(round_number: int, arrays: ArrayRecord) -> None:
        told["closed"].append(time.time())

    strategy = FedAvg(
        min_train_nodes=sites, min_evaluate_nodes=sites, min_available_nodes=sites,
        train_metrics_aggr_fn=slowest("train"), evaluate_metrics_aggr_fn=slowest("evaluate"),
    )  # fmt: skip
    rounds = int(context.run_config["rounds"])
    strategy.start(grid, records.pack(work.build()), num_rounds=rounds, evaluate_fn=note_time)
    out = Path(str(context.run_config["out"]))
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(told), encoding="utf-8")
    partial.rename(out)
