"""A run, from the first question to the judgement. Flower's ServerApp process calls `main`.

ready        which sites are there, and with which cohorts
train        rounds: weights out, updates in, FedAvg, checkpoint
train_alone  each site's own model, the baseline
score        every model on every site's test cases, as histograms and counts
place        what links the models: sums for paired intervals
"""

from __future__ import annotations

import functools
import json
import logging
import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid as FlowerGrid
from flwr.serverapp import ServerApp

from fedai import wire
from fedai.aggregation import FedAvg, check_update
from fedai.checkpoint import load_checkpoint, save_checkpoint
from fedai.errors import FedaiError, FederationError, OutOfTime
from fedai.heads import Head, contradiction
from fedai.judgement import Judgement, pool_histogram
from fedai.metrics import Score, ScoreHistogram
from fedai.placements import PlacementSums
from fedai.study import Study, parse_study
from fedai.tasks.classification import build_network
from fedai.weights import Layout, Weights, applied, layout_of, pack
from fedai.wire import Reply, Task, TaskKind
from fedai_server.grid import prepare
from fedai_server.home import open_home
from fedai_server.rounds import Asked, Correspondence, Grid, Patience, same_task
from fedai_server.runs import OVER, RunDatabase

log = logging.getLogger("fedai.server.run")
app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: FlowerGrid, context: Context) -> None:
    """What Flower starts: one run of one study, to its end."""
    home = open_home(Path(os.environ["FEDAI_SERVER_HOME"]))
    runs = RunDatabase(home.folder / "runs.sqlite")
    run = runs.attached_to(context.run_id)
    study = parse_study(str(context.run_config["study"]))
    prepare(int(study.rounds.max_update_mb * 1e6))
    conduct(grid, study, run.name, runs, home.folder / "registry" / run.name)


def conduct(grid: Any, study: Study, name: str, runs: RunDatabase, registry: Path) -> None:
    """Take a run to its end and write down how it ended; raises what ended it before its time."""
    try:
        Conduct(grid, study, name, runs, registry).to_the_end()
        runs.move(name, "finished")
    except FedaiError as error:
        runs.move(name, "failed", str(error))
        raise
    except BaseException as error:
        runs.move(name, "failed", f"the server's process ended: {type(error).__name__}")
        raise
    finally:
        registry.mkdir(parents=True, exist_ok=True)
        (registry / "record.json").write_text(json.dumps(runs.record(name), indent=1), encoding="utf-8")


@dataclass
class Conduct:
    """One run: its sites, its weights, its models."""

    grid: Grid
    study: Study
    name: str
    runs: RunDatabase
    registry: Path

    def __post_init__(self) -> None:
        network = build_network(self.study)
        self.layout: Layout = layout_of(network)
        self.weights: Weights = pack(network, self.layout)
        self.parent = ""
        self.sites: list[str] = []
        self.post = Correspondence(self.grid, self.study, self.layout, self._is_stopped, self._note_head)

    def to_the_end(self) -> None:
        """All phases in order. Raises OutOfTime, FederationError."""
        references = self.references()  # before any training: a wrong file ends the run here
        self.gather_sites()
        self.runs.move(self.name, "running")
        start = self.weights
        self.parent = self._save("round-0000", self.weights, round=0, sites=[], cases=0)
        for number in range(1, self.study.training.rounds + 1):
            self.close_round(number)
        self.runs.move(self.name, "judging")
        models = {"federated": self.weights}
        if self.study.judgement.local_models:
            models |= self.train_alone(start)
        models |= references
        self.judge(models)

    def gather_sites(self) -> None:
        """Wait for the study's sites, at most `waiting_s`; go on with those that are ready, if they are a
        quorum.
        """
        self.runs.move(self.name, "waiting", f"for {', '.join(self.study.sites)}")
        rules = self.study.rounds
        patience = Patience(len(self.study.sites), 0, rules.waiting_s, least=rules.quorum)
        asked = self.post.ask(same_task(self._task("ready"), self.study.sites), patience, self._note_ready)
        for site, code in asked.refused.items():
            self.runs.add(self.name, "site_refused", {"site": site, "code": code})
        self.sites = sorted(asked.answered)
        if len(self.sites) < rules.quorum:
            self._go_on_or_raise()
            raise OutOfTime(
                f"{len(self.sites)} of {rules.quorum} sites needed were ready within {rules.waiting_s:g} s"
                f"{_who('away', asked.late)}{_refused(asked)}",
                hint="look at each site's log under the reference given, then start the run again",
            )

    def _note_ready(self, site: str, reply: Reply) -> None:
        splits = {
            split: {
                "patients": int(reply.arrays["split_patients"][i]),
                "classes": reply.arrays["split_cases"][i].tolist(),
            }
            for i, split in enumerate(wire.SPLITS)
        }
        for facts in splits.values():
            facts["cases"] = sum(facts["classes"])
        cohort = {
            "flow": {step: reply.metrics[step] for step in wire.FLOW},
            "excluded": {why: reply.metrics[f"excluded_{why}"] for why in wire.EXCLUSIONS},
            "splits": splits,
        }
        self.runs.add(
            self.name, "site_ready", {"site": site, "cohort": cohort, "versions": dict(reply.words)}
        )

    def _note_head(self, site: str, head: Head) -> None:
        """Keep the head of a site's ledger, and say so where it can't be of the ledger of before."""
        before = self.runs.last_head(site)
        fault = contradiction(before, head) if before else ""
        if fault:
            log.warning("%s: the head of its ledger contradicts an earlier one: %s", site, fault)
        self.runs.add(self.name, "ledger_head", {"site": site, "head": dict(head), "contradiction": fault})

    def close_round(self, number: int) -> None:
        """One round: weights out, updates folded in as they come, checkpoint. Raises OutOfTime below the
        quorum.
        """
        mean = FedAvg(self.layout)
        told: dict[str, dict[str, Any]] = {}

        def fold(site: str, reply: Reply) -> None:
            facts = _training_facts(reply)
            mean.add(site, Weights.of(dict(reply.arrays)), facts["cases"])
            told[site] = facts

        least = self.study.rounds.quorum
        asked = self._ask("train", fold, least=least, round=number, arrays=self.weights.arrays())
        if len(asked.answered) < self.study.rounds.quorum:
            raise OutOfTime(
                f"round {number} closed with {len(asked.answered)} of {self.study.rounds.quorum} answers"
                f"{_who('late', asked.late)}{_refused(asked)}",
                hint="the checkpoint of the round before is kept",
            )
        self.weights = applied(self.weights, mean.mean())
        self.parent = self._save(
            f"round-{number:04d}", self.weights, round=number, sites=sorted(mean.sites), cases=mean.cases
        )
        self.runs.add(self.name, "round_closed", _round_facts(number, asked, told, self.parent))
        log.info("round %d closed in %.2f s by %s", number, asked.seconds, ", ".join(asked.answered))

    def train_alone(self, start: Weights) -> dict[str, Weights]:
        """Each site's local-only model, trained as long as the federated one from the same first weights."""
        models: dict[str, Weights] = {}

        def fold(site: str, reply: Reply) -> None:
            update = Weights.of(dict(reply.arrays))
            check_update(update, self.layout, int(reply.metrics["cases"]))
            models[f"local:{site}"] = applied(start, update)
            self._save(
                f"local-{site}",
                models[f"local:{site}"],
                round=0,
                sites=[site],
                cases=int(reply.metrics["cases"]),
            )

        self._ask("train_alone", fold, arrays=start.arrays())
        return dict(sorted(models.items()))

    def references(self) -> dict[str, Weights]:
        """Checkpoints that the coordinator put beside the run (`fedai run start --reference`)."""
        folder = self.registry / "references"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return {
            path.stem: load_checkpoint(path, self.layout) for path in found if path.suffix == ".safetensors"
        }

    def judge(self, models: dict[str, Weights]) -> None:
        """Every model at every site, then the sums that link them. Sites that didn't answer for all are
        left out and named.
        """
        scores: dict[str, dict[str, Score]] = {site: {} for site in self.sites}
        left_out: dict[str, str] = {}
        for model, weights in models.items():

            def fold(site: str, reply: Reply, model: str = model) -> None:
                scores[site][model] = Score.from_arrays(reply.arrays)

            asked = self._ask("score", fold, model=model, arrays=weights.arrays())
            self.runs.add(self.name, "model_scored", {"model": model, "answered": sorted(asked.answered)})
            left_out = {**_absent(asked), **left_out}
        complete = {site: by_model for site, by_model in scores.items() if len(by_model) == len(models)}
        self._leave_out(left_out)
        self._require_quorum(len(complete), "scored every model", left_out)
        self._link(complete, tuple(models), left_out)

    def _leave_out(self, absent: dict[str, str]) -> None:
        for site, why in absent.items():
            log.warning("%s is left out of the judgement: %s", site, why)
            self.runs.add(self.name, "site_left_out", {"site": site, "why": why})

    def _require_quorum(self, sites: int, did: str, left_out: dict[str, str]) -> None:
        if sites < self.study.rounds.quorum:
            who = _who("left out", [f"{site} ({why})" for site, why in left_out.items()])
            raise FederationError(
                f"{sites} of {self.study.rounds.quorum} sites needed {did}{who}",
                hint="the models are kept; look at the sites' logs",
            )

    def _link(
        self, scores: dict[str, dict[str, Score]], models: tuple[str, ...], left_out: dict[str, str]
    ) -> None:
        """Pool the scores and ask for the sums against the pool; who fails now is left out of both, and the
        rest is asked again, with a pool that is smaller by its part.
        """
        while True:
            sums, absent = self._ask_to_place(scores, models)
            if not absent:
                break
            self._leave_out(absent)
            left_out = {**left_out, **absent}
            scores = {site: by_model for site, by_model in scores.items() if site not in absent}
            self._require_quorum(len(scores), "linked the models", left_out)
        together = functools.reduce(operator.add, [sums[site]["pooled"] for site in scores])
        task, own = self.study.task, {site: sums[site]["own"] for site in scores}
        threshold = self.study.judgement.threshold
        judgement = Judgement(models, task.classes, threshold, scores, together, own, left_out)
        (self.registry / "judgement.json").write_text(json.dumps(judgement.to_json()), encoding="utf-8")

    def _ask_to_place(
        self, scores: dict[str, dict[str, Score]], models: tuple[str, ...]
    ) -> tuple[dict[str, dict[str, PlacementSums]], dict[str, str]]:
        pooled = np.stack([pool_histogram(scores, model).to_arrays()["histogram"] for model in models])
        sums: dict[str, dict[str, PlacementSums]] = {}

        def fold(site: str, reply: Reply) -> None:
            sums[site] = {of: _sums_of(reply, of) for of in ("pooled", "own")}

        task = self._task("place", models=models, arrays={"histograms": pooled})
        patience = self._patience(len(scores), least=self.study.rounds.quorum)
        asked = self.post.ask(same_task(task, list(scores)), patience, fold)
        self._go_on_or_raise()
        return sums, _absent(asked)

    def _ask(
        self, kind: TaskKind, fold: Callable[[str, Reply], None], *, least: int = 0, **facts: Any
    ) -> Asked:
        patience = self._patience(self.study.rounds.quorum, least)
        asked = self.post.ask(same_task(self._task(kind, **facts), self.sites), patience, fold)
        self._go_on_or_raise()
        return asked

    def _task(self, kind: TaskKind, **facts: Any) -> Task:
        layout = self.layout.to_json() if kind in ("train", "train_alone", "score") else ""
        return Task(kind=kind, study=self.study.sha256, run=self.name, layout=layout, **facts)

    def _patience(self, quorum: int, least: int = 0) -> Patience:
        return Patience(quorum, self.study.rounds.grace_s, self.study.rounds.deadline_s, least)

    def _save(self, folder: str, weights: Weights, **facts: Any) -> str:
        return save_checkpoint(
            self.registry / folder,
            weights,
            self.layout,
            run=self.name,
            study=self.study.sha256,
            parent=self.parent,
            **facts,
        )

    def _is_stopped(self) -> bool:
        return self.runs.get(self.name).state in OVER

    def _go_on_or_raise(self) -> None:
        if self._is_stopped():
            raise FederationError("the run was stopped")


def _training_facts(reply: Reply) -> dict[str, Any]:
    cases = int(reply.metrics["validation_cases"])
    auroc = ScoreHistogram.from_arrays(reply.arrays).auroc()
    return {
        "cases": int(reply.metrics["cases"]),
        "train_loss": float(reply.metrics["train_loss"]),
        "validation": {
            "loss": float(reply.metrics["validation_loss"]) if cases else None,
            "auroc": [None if np.isnan(value) else float(value) for value in auroc],
            "cases": cases,
        },
    }


def _round_facts(
    number: int, asked: Asked, told: dict[str, dict[str, Any]], checkpoint: str
) -> dict[str, Any]:
    by_site = {
        key: {site: facts[key] for site, facts in told.items()}
        for key in ("cases", "train_loss", "validation")
    }
    return {
        "number": number,
        "answered": sorted(asked.answered),
        "late": asked.late,
        "refused": asked.refused,
        "seconds": round(asked.seconds, 3),
        "checkpoint": checkpoint,
        **by_site,
    }


def _sums_of(reply: Reply, of: str) -> PlacementSums:
    start = f"{of}_"
    return PlacementSums.from_arrays(
        {key.removeprefix(start): array for key, array in reply.arrays.items() if key.startswith(start)}
    )


def _absent(asked: Asked) -> dict[str, str]:
    """Who gave no answer that counts, and why."""
    return {**dict.fromkeys(asked.late, "late"), **asked.refused}


def _refused(asked: Asked) -> str:
    return _who("refused", [f"{site} ({code})" for site, code in asked.refused.items()])


def _who(what: str, names: list[str]) -> str:
    return f"; {what}: {', '.join(names)}" if names else ""
