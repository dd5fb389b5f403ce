"""What a site does for a task: train on its cases, score a model on them, count them.

Runs inside the agent's process on code that is installed here. `Bench` keeps network, cohort and images in
memory between the rounds of a run. `app` is what the bundle names; it refuses to work outside the agent,
because only the agent has the door out (egress and ledger).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedai import wire
from fedai.errors import DataError, FedaiError, RefusedByPolicy, TrainingError
from fedai.linking import JointCalls, Linked
from fedai.metrics import ScoreHistogram
from fedai.score import Score
from fedai.site_state import ALONE, SiteState
from fedai.study import Segmentation, Study
from fedai.wire import Arrays, Metrics, Reply, Task
from fedai_site import cache, cohort, groups, outlining, readiness
from fedai_site.consents import rights_now
from fedai_site.home import SiteHome
from fedai_site.influence import Discarded, noted
from fedai_site.marks import marks_of, seed_of_draws
from fedai_site.permit import Permit, check_cohort
from fedai_site.replies import folder_of
from fedai_site.tripwire import Tripwire, lay
from fedai_site.withheld import remember, withhold

IMAGES_OF: dict[wire.TaskKind, tuple[str, ...]] = {
    "ready": (),
    "train": ("train", "validation"),
    "train_alone": ("train",),
    "validate": ("validation",),
    "score": ("test",),
    "place": (),
}
IN_HAND = ("_images", "_masks", "_tripwires")  # what is kept of the cohort's cases
LOOK = "see `fedai site status HOME --study STUDY.yaml`"

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]
@app.evaluate()  # type: ignore[untyped-decorator]
@app.query()  # type: ignore[untyped-decorator]
def refuse(message: Message, context: Context) -> Message:
    """Flower's own SuperNode would send whatever this returned, past the ledger: so it is given nothing."""
    raise RefusedByPolicy("fedai runs at a site only inside its agent", hint="fedai site start")


@dataclass
class Bench:
    """One study at this site, warm. `may_go_on` is asked before every batch, and so are patients' rights;
    `permit` says how few patients are too few, and which cases may be used.
    """

    home: SiteHome
    study: Study
    may_go_on: Callable[[], bool]
    permit: Permit = field(default_factory=Permit)
    rights: str = ""
    _wanted: dict[str, tuple[cohort.Case, ...]] = field(default_factory=dict, init=False, repr=False)
    _told: dict[str, tuple[cohort.Case, ...]] = field(default_factory=dict, init=False, repr=False)

    def answer(self, task: Task, run_id: int) -> Reply:
        """Do what the task asks, for Flower's run `run_id`; which cases that uses is noted first.

        Work that used a case which may no longer be used is thrown away and done again without it. Raises
        RefusedByPolicy where the task doesn't fit the study or this site's histograms, TrainingError,
        DataError.
        """
        self.check(task)
        while True:
            self.honour_rights()
            with suppress(Discarded):
                return self._answer_once(task, run_id)

    def _answer_once(self, task: Task, run_id: int) -> Reply:
        self._check_cohort(task)
        with noted(self.home.catalogue, task, str(run_id), self.cohort.splits):
            try:
                reply = self._answer(task, run_id)
            except (FedaiError, OSError):
                if self.is_current():
                    raise
                raise Discarded from None
            if not self.is_current():
                raise Discarded
        return reply

    def is_current(self) -> bool:
        """Whether all cases in hand may still be used; one small file is read unless that has changed."""
        now = rights_now(self.home.folder)
        if "cohort" in self.__dict__ and self.rights != now:
            if self._allowed() != self.cohort:
                return False
            self.rights = now
        return True

    def honour_rights(self) -> None:
        """Let go of cases whose consent was withdrawn, has ended, or was changed to other uses."""
        now = rights_now(self.home.folder)
        if not self.is_current():
            self.__dict__ |= {"cohort": self._allowed(), "rights": now} | {name: {} for name in IN_HAND}

    def check_rights(self) -> None:
        """At the door. Raises TrainingError where what is about to leave used a case that may not be used."""
        if not self.is_current():
            raise TrainingError("patients' rights changed while the answer was on its way out")

    def _allowed(self) -> cohort.Cohort:
        """The cohort in hand without the cases that may no longer be used."""
        now = {case for cases in self._select().splits.values() for case in cases}
        splits = self.cohort.splits.items()
        kept = {name: tuple(case for case in cases if case in now) for name, cases in splits}
        return replace(self.cohort, splits=kept)

    def _select(self) -> cohort.Cohort:
        """The cases in use, without those test and validation cases of which nothing may be told."""
        required = self.home.settings.consent_required
        found = cohort.select(self.home.folder, self.study, consent_required=required)
        self._wanted = found.splits
        self._told = withhold(self.home.catalogue, self._wanted, self.permit.minimum_cell)
        return replace(found, splits={**self._told, "train": found.splits["train"]})

    @property
    def told(self) -> dict[str, tuple[cohort.Case, ...]]:
        """What of the cohort may be told of, by split; training uses all cases of its own."""
        train = set(self.cohort.splits["train"])
        return {**self.cohort.splits, "train": tuple(case for case in self._told["train"] if case in train)}

    def remember(self) -> None:
        """Note what is told of, before anything leaves. Raises RefusedByPolicy."""
        told = self.told  # which selects first, where nothing was yet
        remember(self.home.catalogue, self._wanted, told, self.permit.minimum_cell)

    def may_still(self) -> bool:
        return self.may_go_on() and self.is_current()

    def _answer(self, task: Task, run_id: int) -> Reply:
        kept = folder_of(self.home.runs, task, run_id)
        self.state = SiteState(kept)
        arrays, metrics = self._work(task, kept)
        kind = wire.REPLY_OF[task.kind]
        return Reply(
            kind=kind,
            task=task.kind,
            study=task.study,
            round=task.round,
            model=task.model,
            layout=self.layout.sha256 if kind == "update" else "",
            arrays=arrays,
            metrics=metrics,
            words=_versions() if task.kind == "ready" else {},
        )

    def _work(self, task: Task, kept: Path) -> tuple[Arrays, Metrics]:
        if task.kind == "score":
            return self._score(task, kept)
        if task.kind == "place":
            return self._place(task, kept)
        if task.kind == "ready":
            return readiness.ready(self)
        work = {"train": self._train, "train_alone": self._train_alone, "validate": self._validate}
        return work[task.kind](task)

    def check(self, task: Task) -> None:
        """Raise RefusedByPolicy unless the task fits the study; reads no case."""
        wire.check_task(task, self.study, self.layout)

    @cached_property
    def model(self) -> Any:
        """The study's network, and which of it is shared: fedai.local.SiteModel."""
        import torch

        from fedai.local import SiteModel

        if self.home.settings.threads:
            torch.set_num_threads(self.home.settings.threads)
        return SiteModel.of(self.study)

    @property
    def layout(self) -> Any:
        return self.model.shared

    def _load(self, task: Task) -> Any:
        """Put the task's weights, and the site's own, into the network; gives the former."""
        from fedai.weights import Weights

        given = Weights.of(dict(task.arrays))
        self.model.load(given, self._kept(task))
        return given

    def _kept(self, task: Task) -> Arrays:
        """What the strategy left here before the task."""
        if task.kind == "score":
            latest = self.study.training.rounds + 1
            return self.state.alone() if task.model.startswith("local:") else self.state.before(latest)
        return self.state.before(task.round)

    @cached_property
    def cohort(self) -> cohort.Cohort:
        self.rights = rights_now(self.home.folder)
        return self._select()

    def images(self, split: str) -> npt.NDArray[np.uint8]:
        """uint8 [N, 1, rows, columns] of a split, decoded once and then kept."""
        kept: dict[str, npt.NDArray[np.uint8]] = self.__dict__.setdefault("_images", {})
        if split not in kept:
            kept[split] = cache.load(self.home.folder, self.cohort.splits[split], self.study.preprocessing)
        return kept[split]

    def tripwire(self, kind: wire.TaskKind) -> Tripwire | None:
        """What the answer to a task of this kind is compared with: the images that it was made of."""
        splits = IMAGES_OF[kind]
        kept: dict[str, Tripwire] = self.__dict__.setdefault("_tripwires", {})
        if splits and kind not in kept:
            kept[kind] = lay([self.images(split) for split in splits])
        return kept.get(kind)

    def labels(self, split: str) -> npt.NDArray[Any]:
        """int64 [N]; of a segmentation masks, uint8 [N, rows, columns], read once and then kept."""
        cases, task = self.cohort.splits[split], self.study.task
        if not isinstance(task, Segmentation):
            return np.array([case.label for case in cases], dtype=np.int64)
        kept: dict[str, npt.NDArray[np.uint8]] = self.__dict__.setdefault("_masks", {})
        if split not in kept:
            facts = self.study.preprocessing, task.structures
            kept[split] = cache.load_masks(self.home.folder, cases, *facts)
        return kept[split]

    def cases(self, split: str) -> Any:
        """fedai.local.Cases of a split."""
        from fedai.local import Cases

        own = self.cohort.splits[split]
        spacing = cache.spacing_of(own, self.study.preprocessing)
        return Cases(self.images(split), self.labels(split), tuple(self.patients(split)), spacing)

    def patients(self, split: str) -> list[str]:
        return [case.patient for case in self.cohort.splits[split]]

    def _check_cohort(self, task: Task) -> None:
        """Raise where there are too few patients for what is asked. `ready` looks at the data anew."""
        if task.kind == "ready":
            for stale in ("cohort", *IN_HAND):
                self.__dict__.pop(stale, None)
        if not self.cohort.flow["eligible"]:
            raise DataError("no case of this site is eligible", hint=LOOK)
        check_cohort(self.permit, self.cohort)
        wanted = max(self.study.cohort.minimum_patients, self.permit.minimum_cell)
        patients = len(set(self.patients("train")))
        if patients < wanted:
            raise TrainingError(f"{patients} training patients, the study wants {wanted}", hint=LOOK)
        if task.kind in ("score", "place") and self._is_too_small("test"):
            raise TrainingError(
                f"fewer than {self.permit.minimum_cell} test patients: of so few nothing leaves", hint=LOOK
            )

    def _is_too_small(self, split: str) -> bool:
        return len(set(self.patients(split))) < self.permit.minimum_cell

    def marks(self) -> npt.NDArray[np.uint8]:
        return marks_of(self.home.pseudonym_key.read_bytes(), self.cohort, self.study)

    def _train(self, task: Task) -> tuple[Arrays, Metrics]:
        told, validation = self._validate(task)
        arrays, metrics = self._train_round(task)
        return {**arrays, **told}, {**metrics, **validation}

    def _validate(self, task: Task) -> tuple[Arrays, Metrics]:
        """What is told of the task's weights on the validation cases."""
        from fedai.validation import validate

        self._load(task)
        facts = self.cases("validation"), self.study, self.permit.minimum_cell
        told = validate(self.model.network, *facts, may_go_on=self.may_still)
        self.remember()
        return told

    def _train_round(self, task: Task) -> tuple[Arrays, Metrics]:
        from fedai.local import train_round
        from fedai.weights import Weights

        done = train_round(
            self.model,
            Weights.of(dict(task.arrays)),
            task.arrays,
            self._kept(task),
            self.cases("train"),
            site=self.home.settings.name,
            number=task.round,
            may_go_on=self.may_still,
        )
        self.state.keep(done.kept, task.round)
        return {**done.update.arrays(), **done.beside}, _told(done.trained)

    def _predict(self, split: str) -> npt.NDArray[np.float64]:
        from fedai.evaluation import predict

        return predict(self.model.network, self.images(split), may_go_on=self.may_still)

    def _train_alone(self, task: Task) -> tuple[Arrays, Metrics]:
        from fedai.training import seed_of, train
        from fedai.weights import difference, pack

        start, cases, training = self._load(task), self.cases("train"), self.study.training
        trained = train(
            self.model.network,
            cases.images,
            cases.labels,
            training,
            classes=self.study.task.outputs,
            epochs=training.local_epochs * training.rounds,
            seed=seed_of(training.seed, self.home.settings.name, task.kind, task.round),
            may_go_on=self.may_still,
        )
        if self.model.keeps_layers:
            self.state.keep(self.model.own_arrays(), ALONE)
        return difference(pack(self.model.network, self.layout), start).arrays(), _told(trained)

    def _score(self, task: Task, kept: Path) -> tuple[Arrays, Metrics]:
        self._load(task)
        if isinstance(self.study.task, Segmentation):
            kept.mkdir(parents=True, exist_ok=True)
            return outlining.score(self, _scores_in(kept, task.model))
        scores = self._predict("test")
        kept.mkdir(parents=True, exist_ok=True)
        np.save(_scores_in(kept, task.model), scores)
        self.remember()
        patients, asked = self.patients("test"), self.study.judgement
        thresholds = (asked.threshold, asked.net_benefit_at)
        score = Score.of(scores, self.labels("test"), patients, *thresholds)
        arrays = {**score.to_arrays(), **groups.score(self, scores)}
        return arrays, {"cases": len(scores), "patients": len(set(patients))}

    def _place(self, task: Task, kept: Path) -> tuple[Arrays, Metrics]:
        if isinstance(self.study.task, Segmentation):
            return outlining.link(self, [_kept_scores(kept, model) for model in task.models])
        labels, patients = self.labels("test"), self.patients("test")
        scores = [_kept_scores(kept, model) for model in task.models]
        pooled = [ScoreHistogram.from_arrays({"histogram": counts}) for counts in task.arrays["histograms"]]
        own = [ScoreHistogram.of(values, labels) for values in scores]
        wire.check_pool(np.stack([h.counts for h in pooled]), np.stack([h.counts for h in own]))
        arrays: Arrays = {}
        seed = seed_of_draws(self.home.pseudonym_key.read_bytes(), self.cohort)
        for of, histograms in (("pooled", pooled), ("own", own)):
            linked = Linked.of(scores, histograms, labels, patients, seed)
            arrays = {**arrays, **{f"{of}_{name}": array for name, array in linked.to_arrays().items()}}
        calls = JointCalls.of(scores, labels, patients, self.study.judgement.threshold, seed)
        return {**arrays, **calls.to_arrays(), "marks": self.marks()}, {"cases": len(labels)}


def _told(trained: Any) -> Metrics:
    return {"cases": trained.cases, "steps": trained.steps, "train_loss": trained.loss}


def _scores_in(kept: Path, model: str) -> Path:
    return kept / f"scores-{model.replace(':', '_')}.npy"


def _kept_scores(kept: Path, model: str) -> npt.NDArray[np.float64]:
    path = _scores_in(kept, model)
    if not path.exists():
        raise TrainingError(f"this site never scored the model {model} in this run", hint="score it first")
    scores: npt.NDArray[np.float64] = np.load(path, allow_pickle=False)
    return scores


def _versions() -> dict[str, str]:
    names = dict(zip(wire.VERSIONS, ("fedai-radiology", "flwr", "torch", "monai", "pydicom"), strict=True))
    return {name: importlib.metadata.version(package) for name, package in names.items()}
