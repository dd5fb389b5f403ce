"""Training without a federation: one model from the training cases of one or more homes that lie on this
machine.

With one home it is the local-only model; with several, the centralised reference, for whoever may hold all
the data. Nothing is sent anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from fedai.checkpoint import save_checkpoint
from fedai.errors import TrainingError
from fedai.study import Study
from fedai.wire import Task
from fedai_site.client_app import Bench
from fedai_site.home import SiteHome
from fedai_site.influence import noted


def train_alone(
    homes: Sequence[SiteHome], study: Study, out: Path, *, may_go_on: Callable[[], bool]
) -> dict[str, object]:
    """Train the study's network for rounds x local_epochs on the homes' training cases and write a
    checkpoint to `out`.

    Raises TrainingError (also where a patient withdraws meanwhile), DataError, ConfigError.
    """
    benches = [Bench(home, study, may_go_on) for home in homes]
    task = Task(kind="train_alone", study=study.sha256, run=f"alone {out}")
    with ExitStack() as notes:
        for bench in benches:
            notes.enter_context(noted(bench.home.catalogue, task, "", bench.cohort.splits))
        return _train(benches, study, out, may_go_on)


def _train(
    benches: Sequence[Bench], study: Study, out: Path, may_go_on: Callable[[], bool]
) -> dict[str, object]:
    from fedai.training import seed_of, train
    from fedai.weights import pack

    images = np.concatenate([bench.images("train") for bench in benches])
    labels = np.concatenate([bench.labels("train") for bench in benches])
    if not len(labels):
        raise TrainingError("no training case in these homes", hint="fedai site add-data")
    network, layout = benches[0].model.network, benches[0].layout
    names = [bench.home.settings.name for bench in benches]
    trained = train(
        network,
        images,
        labels,
        study.training,
        classes=study.task.outputs,
        epochs=study.training.rounds * study.training.local_epochs,
        seed=seed_of(study.training.seed, *names, "alone"),
        may_go_on=lambda: may_go_on() and all(bench.is_current() for bench in benches),
    )
    facts = {
        "study": study.sha256,
        "split_plan": study.split_plan,
        "sites": names,
        "cases": trained.cases,
        "round": 0,
        "parent": "",
    }
    digest = save_checkpoint(out, pack(network, layout), layout, **facts)
    return {"sha256": digest, "cases": trained.cases, "steps": trained.steps, "train_loss": trained.loss}
