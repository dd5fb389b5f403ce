"""A run, from the first question to the judgement. Flower's ServerApp process calls `main`.

ready        which sites are there, and with which cohorts
train        rounds: weights out, updates in, FedAvg, checkpoint
validate     where the study chooses the best checkpoint: the last one, on validation cases
train_alone  each site's own model, the baseline
score        every model on every site's test cases, as histograms and counts
place        what links the models: sums for paired intervals

Whatever is finished is in the run database and the registry, so that the next process of the same run (see
continuation.py) goes on where this one was killed. What sites had answered meanwhile they answer again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid as FlowerGrid
from flwr.serverapp import ServerApp

from fedai import wire
from fedai.checkpoint import (
    checkpoint_sha256,
    load_checkpoint,
    load_state,
    save_checkpoint,
    write_whole,
)
from fedai.errors import FedaiError, FederationError, OutOfTime
from fedai.heads import Head, contradiction
from fedai.logs import about, write_json
from fedai.overview import read_overview
from fedai.strategies import FedBuff, State
from fedai.study import Study, parse_study
from fedai.tasks.classification import build_network
from fedai.weights import Layout, Weights, pack
from fedai.wire import Reply, Task, TaskKind
from fedai_server import buffered, judging, training
from fedai_server.choosing import choose, ended_early
from fedai_server.continuation import beat, conducting
from fedai_server.control import is_cut_off
from fedai_server.grid import prepare
from fedai_server.home import open_home
from fedai_server.launch import OVERVIEW
from fedai_server.leaving_out import check_judges, check_without, without_of
from fedai_server.progress import ANSWER, ASKED
from fedai_server.room import Room
from fedai_server.rounds import (
    Asked,
    Correspondence,
    Grid,
    Open,
    Patience,
    bytes_of,
    refusals_of,
    same_task,
    told_of,
)
from fedai_server.runs import OVER, RunDatabase

PAUSED_POLL_S = 0.5

log = logging.getLogger("fedai.server.run")
app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: FlowerGrid, context: Context) -> None:
    """What Flower starts: one run of one study, to its end."""
    home = open_home(Path(os.environ["FEDAI_SERVER_HOME"]))
    runs = RunDatabase(home.runs_database, waits=True)
    write_json(home.settings.log_format)
    run = runs.attached_to(context.run_id)
    about(run=run.name)
    study = parse_study(str(context.run_config["study"]))
    prepare(int(study.rounds.max_update_mb * 1e6))
    registry = home.folder / "registry" / run.name
    with conducting(registry, context.run_id):
        conduct(grid, study, run.name, runs, registry)


class Interrupted(FederationError):
    """This process can't go on; the run can, in another one."""


def conduct(grid: Any, study: Study, name: str, runs: RunDatabase, registry: Path) -> None:
    """Take a run to its end and write down how it ended; raises what ended it before its time.

    A process that is ended, replaced, or cut off from the SuperLink is no end of the run; on a full disk it
    waits.
    """
    try:
        Conduct(grid, study, name, runs, registry).to_the_end()
        looked = "an overview: nothing was trained" if runs.facts(name, OVERVIEW) else ""
        runs.move(name, "finished", looked or ended_early(runs, name, study.training))
    except Interrupted:
        raise
    except FedaiError as error:
        runs.move(name, "failed", str(error))
        raise
    except Exception as error:
        if not is_cut_off(error):
            runs.move(name, "failed", f"the server's process ended: {type(error).__name__}")
        raise
    finally:
        record = json.dumps(runs.record(name), indent=1).encode()
        Room(runs, name).wait_for(lambda: _write_record(registry, record))


def _write_record(registry: Path, record: bytes) -> None:
    registry.mkdir(parents=True, exist_ok=True)
    write_whole(registry / "record.json", record)


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
        self.strategy = self.study.strategy
        self.layout: Layout = self.strategy.shared_layout(network)
        self.state: State = {}
        self.weights: Weights = pack(network, self.layout)
        self.parent = ""
        self.sites: list[str] = []
        self.without = without_of(self.runs, self.name)
        if self.without:
            check_without(self.without, self.study, network)
        self.under_way: dict[str, Open] = {}  # where rounds don't wait for it: who still trains, and on what
        self.room = Room(self.runs, self.name)
        self.flower_id = self.runs.get(self.name).flower_id
        self.post = Correspondence(
            self.grid, self.study, self.layout, self._is_stopped, self._note_head,
            self._note_question, self._note_answer,
        )  # fmt: skip

    def to_the_end(self) -> None:
        """All phases in order, from where an earlier process of this run came. Raises OutOfTime,
        FederationError.
        """
        references = self.references()  # before any training: a wrong file ends the run here
        start = self.weights
        self.begin()
        if self.runs.facts(self.name, OVERVIEW):
            return
        closed, close_round = self.take_up(), training.close_round
        if isinstance(self.strategy, FedBuff):
            self.under_way, close_round = buffered.take_up(self, closed), buffered.close_round
        for number in range(closed + 1, self.study.training.rounds + 1):
            if ended_early(self.runs, self.name, self.study.training):
                break
            close_round(self, number)
        self.weights = choose(self)
        self.runs.move(self.name, "running", "judging the models")
        models = {"federated": self.weights}
        if self.study.judgement.local_models and not self.without:
            models |= judging.train_alone(self, start)
        judging.judge(self, models | references)

    def begin(self) -> None:
        """The sites that take part, and the first weights: once in a run."""
        begun = self.runs.facts(self.name, "begun")
        if begun:
            self.sites = list(begun[0][2]["sites"])
            return
        self.gather_sites()
        self.save("round-0000", self.weights, round=0, sites=[], cases=0)
        self.runs.add(self.name, "begun", {"sites": self.sites, "references": self.told_of_references()})

    def take_up(self) -> int:
        """Go on from the last round that closed, or from the first weights; gives its number.

        Raises FederationError where its checkpoint is not the one that was written down.
        """
        closed = self.runs.last_round(self.name)
        folder = self.registry / f"round-{closed:04d}"
        self.weights, self.parent = load_checkpoint(folder, self.layout), checkpoint_sha256(folder)
        self.state = load_state(folder)
        told = [
            f["checkpoint"] for _, _, f in self.runs.facts(self.name, "round_closed") if f["number"] == closed
        ]
        if told and told[-1] != self.parent:
            raise FederationError(
                f"the checkpoint of round {closed} is not the one that the round closed with",
                hint=f"restore {folder} and start the study again",
            )
        total = self.study.training.rounds
        self.runs.move(self.name, "running", f"round {min(closed + 1, total)} of {total}")
        return closed

    def gather_sites(self) -> None:
        """Wait for the study's sites, at most `waiting_s`; go on with those that are ready, if they are a
        quorum.
        """
        self.runs.move(self.name, "waiting", f"for {', '.join(self.study.sites)}")
        rules = self.study.rounds
        patience = Patience(len(self.study.sites), 0, rules.waiting_s, least=rules.quorum)
        asked = self.post.ask(same_task(self.task("ready"), self.study.sites), patience, self._note_ready)
        for site, code in asked.refused.items():
            self.runs.add(self.name, "site_refused", {"site": site, "code": code})
        self.sites = sorted(asked.answered)
        check_judges(self.without, asked)
        if len(self.sites) < rules.quorum:
            self.go_on_or_raise()
            raise OutOfTime(
                f"{len(self.sites)} of {rules.quorum} sites needed were ready"
                f"{f' within {rules.waiting_s:g} s' if asked.late else ''}"
                f"{told_of('away', asked.late)}{refusals_of(asked)}",
                hint="ask each site's engineer what its log says under the reference, then start it again",
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
            "overlapping_patients": reply.metrics["overlapping_patients"],
            "marks": wire.read_marks(reply.arrays["marks"]),
        } | ({"overview": read_overview(reply.arrays)} if self.study.overview else {})
        self.runs.add(
            self.name, "site_ready", {"site": site, "cohort": cohort, "versions": dict(reply.words)}
        )

    def _note_head(self, site: str, head: Head) -> None:
        """Keep the head of a site's ledger, and say so where it can't be of the ledger of before."""
        before = self.runs.last_head(site)
        fault = contradiction(before, head) if before else ""
        if fault:
            log.warning(
                "%s: the head of its ledger contradicts an earlier one: %s", site, fault, extra={"site": site}
            )
        self.runs.add(self.name, "ledger_head", {"site": site, "head": dict(head), "contradiction": fault})

    def _note_question(self, waiting: Mapping[str, Open], patience: Patience) -> None:
        """For who watches: what is open from now on, and until when (see progress.py)."""
        if not waiting:
            return
        kinds, rounds = zip(*((one.task.kind, one.task.round) for one in waiting.values()), strict=True)
        told = {"task": kinds[0], "round": max(rounds), "sites": sorted(waiting)}
        sent = sum(bytes_of(one.task) for one in waiting.values() if not one.messages)
        about(run=self.name, round=max(rounds), task=kinds[0])
        self.runs.add(self.name, ASKED, {**told, "deadline_s": patience.deadline_s, "bytes": sent})

    def _note_answer(self, site: str, refused: str, received: int) -> None:
        self.runs.add(self.name, ANSWER, {"site": site, "refused": refused, "bytes": received})

    @property
    def trainers(self) -> tuple[str, ...]:
        """The sites of the run that train, in the order of the study."""
        return tuple(s for s in self.study.sites if s in self.sites and s not in self.without)

    def references(self) -> dict[str, Weights]:
        """Checkpoints that the coordinator put beside the run (`fedai run start --reference`)."""
        folder = self.registry / "references"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return {
            path.stem: load_checkpoint(path, self.layout) for path in found if path.suffix == ".safetensors"
        }

    def told_of_references(self) -> dict[str, dict[str, Any]]:
        """What each reference's manifest says, where one lay beside it: study, split plan, sites, cases."""
        folder = self.registry / "references"
        known = sorted(folder.glob("*.manifest.json")) if folder.is_dir() else []
        found = {path.name.removesuffix(".manifest.json"): json.loads(path.read_bytes()) for path in known}
        told = ("sha256", "study", "split_plan", "sites", "cases")
        return {name: {key: facts.get(key) for key in told} for name, facts in found.items()}

    def ask(
        self,
        kind: TaskKind,
        fold: Callable[[str, Reply], None],
        *,
        sites: list[str] | None = None,
        least: int = 0,
        **facts: Any,
    ) -> Asked:
        self.wait_while_paused()
        patience = self.patience(self.study.rounds.quorum, least)
        wanted = self.sites if sites is None else sites
        asked = self.post.ask(same_task(self.task(kind, **facts), wanted), patience, fold)
        self.go_on_or_raise()
        return asked

    def task(self, kind: TaskKind, **facts: Any) -> Task:
        layout = self.layout.to_json() if kind in wire.WITH_WEIGHTS else ""
        return Task(kind=kind, study=self.study.sha256, run=self.name, layout=layout, **facts)

    def patience(self, quorum: int, least: int = 0) -> Patience:
        return Patience(quorum, self.study.rounds.grace_s, self.study.rounds.deadline_s, least)

    def save(self, folder: str, weights: Weights, **facts: Any) -> str:
        """Write a checkpoint, when there is room for it; gives its SHA-256."""
        told = {"run": self.name, "study": self.study.sha256, "parent": self.parent, **facts}
        place = self.registry / folder
        return self.room.wait_for(lambda: save_checkpoint(place, weights, self.layout, **told))

    def _is_stopped(self) -> bool:
        beat(self.registry)
        run = self.runs.get(self.name)
        return run.state in OVER or run.flower_id != self.flower_id

    def go_on_or_raise(self) -> None:
        run = self.runs.get(self.name)
        if run.state in OVER:
            raise FederationError("the run was stopped")
        if run.flower_id != self.flower_id:
            raise Interrupted("the run goes on in another process")

    def wait_while_paused(self) -> None:
        while self.runs.get(self.name).state == "paused" and not self._is_stopped():
            time.sleep(PAUSED_POLL_S)
        self.go_on_or_raise()
