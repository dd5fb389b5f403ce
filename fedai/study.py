"""Study: what a consortium agrees on, as data. Frozen; its content hash is what a site approves."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, model_validator

from fedai import choice, selection
from fedai.choice import Checkpoint, EarlyStopping
from fedai.cohort_rules import FILTERS, CohortRules, Years
from fedai.datause import DataUse
from fedai.errors import ConfigError
from fedai.registry import AdamW, CrossEntropy, Loss, Network, Optimizer, Transform, task_misfits
from fedai.selection import Selection
from fedai.strategies import FedAvg, Strategy
from fedai.subgroups import AGE_BANDS, Variable, levels_of
from fedai.yamlfile import Frozen, load

MOST_HELD_OUT = 0.9
NAME_PATTERN = r"[a-z][a-z0-9-]{0,40}"
STRUCTURE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$"
OUTLINED = ("empty", "outlined")


def _is_name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(
            "names are lower-case letters, digits and hyphens, at most 41, starting with a letter"
        )
    return text


Name = Annotated[str, AfterValidator(_is_name)]
ShortText = Annotated[str, Field(min_length=1, max_length=2000)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Side = Annotated[int, Field(ge=16, le=2048)]


def _all_different(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(twice)}")
    return names


class Classification(Frozen):
    """One label per image. `classes` in order; with two classes the second is the positive one."""

    kind: Literal["classification"] = "classification"
    classes: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=60)], ...],
        Field(min_length=2, max_length=50),
        AfterValidator(_all_different),
    ]

    @property
    def outputs(self) -> int:
        """Logits of an image."""
        return len(self.classes)


class Segmentation(Frozen):
    """Structures outlined in each image. `structures` in order; what is in none is background, and no pixel
    is in two. `tolerance_mm`: how far two outlines may lie apart and still agree (NSD).
    """

    kind: Literal["segmentation"]
    structures: Annotated[
        tuple[Annotated[str, Field(pattern=STRUCTURE_PATTERN)], ...],
        Field(min_length=1, max_length=20),
        AfterValidator(_all_different),
    ]
    tolerance_mm: Annotated[float, Field(gt=0, le=100)] = 2.0

    @property
    def classes(self) -> tuple[str, ...]:
        """What a case counts as: whether any structure is outlined in it."""
        return OUTLINED

    @property
    def outputs(self) -> int:
        """Logits of a pixel: the background's and one for each structure."""
        return 1 + len(self.structures)


def _task_kind(value: object) -> str:
    """A task that doesn't say its kind is a classification, as there was no other at first."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "classification" if kind is None else str(kind)


ATask = Annotated[
    Annotated[Classification, Tag("classification")] | Annotated[Segmentation, Tag("segmentation")],
    Discriminator(_task_kind),
]


class Preprocessing(Frozen):
    """Intensity window per image by percentiles, then resize to `image_size` (rows, columns; pixels)."""

    image_size: tuple[Side, Side] = (64, 64)
    lower_percentile: Annotated[float, Field(ge=0, lt=50)] = 1.0
    upper_percentile: Annotated[float, Field(gt=50, le=100)] = 99.0


class Training(Frozen):
    """What each site does between receiving weights and sending its update.

    `learning_rate_schedule: cosine` lets the rate fall to 0 over all rounds, and likewise over the epochs of
    a model that is trained alone.
    """

    rounds: Annotated[int, Field(ge=1, le=10_000)]
    local_epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    batch_size: Annotated[int, Field(ge=2, le=4096)] = 32
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    optimizer: Optimizer = AdamW()
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    loss: Loss = CrossEntropy()
    augmentation: Annotated[tuple[Transform, ...], Field(max_length=16)] = ()
    checkpoint: Checkpoint = Checkpoint()
    early_stopping: EarlyStopping | None = None

    @property
    def looks_at_validation(self) -> bool:
        """Whether the checkpoint that is judged, or the number of rounds, depends on validation cases."""
        return self.chooses_best or self.early_stopping is not None

    @property
    def chooses_best(self) -> bool:
        """Whether the best checkpoint is judged in place of the last."""
        return self.checkpoint.choose == "best"


class Rounds(Frozen):
    """When a round closes: when all have answered; `grace_s` after `quorum` have; at `deadline_s` at the
    latest.

    Who is late is left out of the round and named. `waiting_s`: how long a run waits for its sites at the
    start.
    """

    quorum: Annotated[int, Field(ge=1)]
    deadline_s: Annotated[float, Field(ge=1, le=7 * 86400)] = 600
    grace_s: Annotated[float, Field(ge=0, le=7 * 86400)] = 120
    waiting_s: Annotated[float, Field(ge=1, le=7 * 86400)] = 120
    max_update_mb: Annotated[float, Field(gt=0, le=4096)] = 256
    selection: Selection = Selection()


class Split(Frozen):
    """Fractions of a site's patients; the rest trains. The split is by patient and never changes for a
    patient.
    """

    validation: Fraction = 0.15
    test: Fraction = 0.25
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


def _rising(edges: tuple[int, ...]) -> tuple[int, ...]:
    if list(edges) != sorted(set(edges)) or 0 in edges:
        raise ValueError("write the ages at which a band begins, in years, rising, without 0")
    return edges


class Evaluation(Frozen):
    """How models are judged on the test cases. All is fixed beforehand: `threshold` of calls, the thresholds
    of the decision curve, the AUROC `margin` of non-inferiority. `local_models` are the baseline.

    `subgroups`: by what the test patients are told apart, where a site's policy allows it; `age_bands`: the
    ages at which a band begins, years.
    """

    threshold: Fraction = 0.5
    local_models: bool = True
    decision_thresholds: Annotated[tuple[Fraction, ...], Field(max_length=100)] = ()
    margin: Fraction | None = None
    subgroups: Annotated[tuple[Variable, ...], AfterValidator(_all_different)] = ()
    age_bands: Annotated[tuple[Years, ...], Field(min_length=1, max_length=8), AfterValidator(_rising)] = (
        AGE_BANDS
    )

    @property
    def levels(self) -> dict[Variable, tuple[str, ...]]:
        """The subgroups of each variable asked for, in the order in which a site tells of them."""
        return {name: levels_of(name, self.age_bands) for name in self.subgroups}

    @property
    def net_benefit_at(self) -> tuple[float, ...]:
        """The thresholds of the decision curve: those stated, or 0.05, 0.10 ... 0.95."""
        return self.decision_thresholds or tuple(i / 20 for i in range(1, 20))


def _is_date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError('write it as a quoted date, for example "2027-06-30"') from None
    return text


PurposeKind = Literal[
    "method_development", "clinical_research", "quality_assurance", "education", "product_development"
]


class Ethics(Frozen):
    """A review board's (IRB, DRB) number for the study, and the last day on which it holds."""

    board: Annotated[str, Field(min_length=1, max_length=200)]
    number: Annotated[str, Field(min_length=1, max_length=100)]
    expires: Annotated[str, AfterValidator(_is_date)]


class Purpose(Frozen):
    """What a study is for, in words and in a kind that a hospital's policy can accept or refuse; who pays,
    whether somebody means to earn by it, who may use the model, and under which ethics numbers it runs.
    """

    kind: PurposeKind | None = None
    statement: ShortText
    commercial_interest: bool
    sponsors: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=50)
    ] = ()
    model_users: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=50)
    ] = ()
    ethics: Annotated[tuple[Ethics, ...], Field(max_length=200)] = ()


def _purpose_form(value: object) -> str:
    return "text" if isinstance(value, str) else "Purpose"


class Study(Frozen):
    """The YAML that a consortium agrees on. See configs/studies/ for one in full.

    `data_use` is what patients' consent is held against; without it a study counts as one that needs the
    widest consent.
    """

    name: Name
    version: Annotated[int, Field(ge=1)] = 1
    purpose: Annotated[
        Annotated[ShortText, Tag("text")] | Annotated[Purpose, Tag("Purpose")], Discriminator(_purpose_form)
    ]
    data_use: DataUse | None = None
    task: ATask
    sites: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1000), AfterValidator(_all_different)]
    cohort: CohortRules = CohortRules()
    preprocessing: Preprocessing = Preprocessing()
    network: Network
    training: Training
    strategy: Strategy = FedAvg()
    rounds: Rounds
    split: Split = Split()
    judgement: Evaluation = Evaluation()
    overview: bool = False  # sites tell what their images are like, before any training

    @staticmethod
    def cross_checks(data: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
        """Rules that span keys, tolerant of data that is wrong in other ways: (place, what is wrong)."""
        found: list[tuple[tuple[str, ...], str]] = []
        rounds, sites, split = data.get("rounds"), data.get("sites"), data.get("split")
        quorum = rounds.get("quorum") if isinstance(rounds, dict) else None
        if isinstance(quorum, int) and isinstance(sites, list | tuple) and quorum > len(sites):
            found.append((("rounds", "quorum"), f"quorum is {quorum}, but only {len(sites)} sites are named"))
        fractions = (
            [(split or {}).get(key, 0) for key in ("validation", "test")] if isinstance(split, dict) else []
        )
        if (
            all(isinstance(fraction, int | float) for fraction in fractions)
            and sum(fractions) > MOST_HELD_OUT
        ):
            found.append((("split",), "validation and test leave under a tenth of the patients for training"))
        found += task_misfits(data) + choice.misfits(data) + selection.misfits(data)
        cohort = data.get("cohort")
        if isinstance(cohort, dict):
            found += [(("cohort", *place), text) for place, text in CohortRules.cross_checks(cohort)]
        purpose, use = data.get("purpose"), data.get("data_use")
        if isinstance(purpose, dict) and isinstance(use, dict):
            said = (purpose.get("commercial_interest"), use.get("commercial"))
            if said == (True, False):
                found.append((("data_use", "commercial"), "the purpose names a commercial interest"))
        return found

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Study:
        wrong = self.cross_checks(self.model_dump())
        least = self.strategy.least_answers
        if self.rounds.quorum < least:
            wrong.append((("rounds", "quorum"), f"rounds.quorum: {self.strategy.name} needs {least} answers"))
        misfit = self.strategy.misfit(self.training.optimizer)
        if misfit:
            wrong.append((("training", "optimizer"), misfit))
        clash = self.strategy.clash(self.rounds.quorum, len(self.sites))
        if clash:
            wrong.append((("strategy",), clash))
        if wrong:
            raise ValueError("; ".join(text for _, text in wrong))
        return self

    @property
    def statement(self) -> str:
        """What the study is for, in words."""
        return self.purpose if isinstance(self.purpose, str) else self.purpose.statement

    @property
    def notes(self) -> list[str]:
        """What is sound, and yet to be known before somebody starts it."""
        training, notes = self.training, list[str]()
        if training.looks_at_validation:
            rule = "the rule on validation cases is of the federated model; references are taken as they are"
            alone = f", and local-only models after {training.rounds * training.local_epochs} epochs"
            notes.append(rule + (alone if self.judgement.local_models else ""))
        return notes

    @property
    def split_plan(self) -> str:
        """What decides which split a site's patient is in: equal plans, equal splits."""
        split = self.split
        return f"{self.name}/{split.seed}/{split.validation:g}/{split.test:g}"

    def canonical(self) -> str:
        """JSON with sorted keys and every default written out: what is hashed and what travels.

        A study that leaves out `data_use`, decision thresholds, the margin, subgroups, a filter of the
        cohort, the choice of a checkpoint or of sites, or the overview reads as it did before there were any,
        so that its hash stays.
        """
        unsaid: dict[str, Any] = {"data_use": True} if self.data_use is None else {}
        unsaid["judgement"] = {
            name
            for name in ("decision_thresholds", "margin", "subgroups")
            if not getattr(self.judgement, name)
        }
        if "age_band" not in self.judgement.subgroups and self.judgement.age_bands == AGE_BANDS:
            unsaid["judgement"].add("age_bands")
        if not self.overview:
            unsaid["overview"] = True
        unsaid["rounds"] = {"selection"} if self.rounds.selection == Selection() else set()
        unsaid["cohort"] = {name for name in FILTERS if not getattr(self.cohort, name)}
        training = self.training
        unsaid["training"] = {"early_stopping"} if training.early_stopping is None else set()
        if training.checkpoint == Checkpoint():
            unsaid["training"].add("checkpoint")
        said = self.model_dump(mode="json", exclude=unsaid)
        return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @cached_property
    def sha256(self) -> str:
        """Content hash (hex). Comments, key order and layout of the file don't change it; any value does."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


def read_study(path: Path) -> Study:
    """Read a study file. Raises ConfigError: every problem as `file:line:column: path: problem (hint)`."""
    return load(path, Study)


def parse_study(text: str, origin: str = "the study") -> Study:
    """Read a study that travelled or was kept: its canonical JSON, to the last character.

    Raises ConfigError for any other text, even where it would mean the same.
    """
    try:
        study = Study.model_validate_json(text)
    except ValidationError as invalid:
        first = ".".join(map(str, invalid.errors()[0]["loc"])) or "its form"
        raise ConfigError(
            f"{origin} is not a study of this release: {invalid.error_count()} problems, first {first}",
            hint="server and sites must run the same release of fedai",
        ) from None
    if study.canonical() != text:
        raise ConfigError(f"{origin} is not in canonical form", hint="was it changed by hand?")
    return study
