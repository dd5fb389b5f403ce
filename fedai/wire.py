"""The one definition of what may cross between a site and the server.

A site sends three kinds of message and no other: `status`, `update` and `score`. For each task of a study,
`form_of` says exactly which arrays (name, dtype, shape), which metrics (name, type) and which words the
answer holds; `check` refuses an answer that differs in anything. The site checks before sending (egress),
the server checks on receipt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedai import overview
from fedai.errors import RefusedByPolicy
from fedai.heads import Head, head_fault
from fedai.linking import calls_forms, linked_forms
from fedai.metrics import BINS
from fedai.outline_score import outline_forms, outline_links_forms
from fedai.score import score_forms
from fedai.study import Segmentation, Study
from fedai.subgroups import small_subgroups, subgroup_forms
from fedai.weights import Layout

Arrays = Mapping[str, npt.NDArray[Any]]
Metrics = Mapping[str, int | float]
TaskKind = Literal["ready", "train", "train_alone", "validate", "score", "place"]
ReplyKind = Literal["status", "update", "score"]

REPLY_OF: dict[TaskKind, ReplyKind] = {
    "ready": "status",
    "train": "update",
    "train_alone": "update",
    "validate": "score",
    "score": "score",
    "place": "score",
}

SPLITS = ("train", "validation", "test")
FLOW = ("found", "deidentified", "consented", "labelled", "eligible", "used")
EXCLUSIONS = (
    "quarantined",
    "unreadable_pixels",
    "duplicate",
    "withdrawn",
    "no_consent",
    "consent_expired",
    "consent_scope",
    "unlabelled",
    "ambiguous_key",
    "same_image",
    "label_not_in_study",
    "modality",
    "filtered",  # by any other filter of the study's cohort: which, stays at the site
)
# Digests under a key of the site's own: of all cases in use, the test cases, their labels, and their
# patients' weights in `fedai.replicates`. Equal where these are equal, and else without meaning.
MARKS = ("snapshot", "test_cases", "test_labels", "draws")
MARKS_FORM = ("uint8", (len(MARKS), 32))
VERSIONS = ("fedai", "flwr", "torch", "monai", "pydicom")
VERSION_PATTERN = re.compile(r"[0-9][0-9A-Za-z.+]{0,31}")
RUN_PATTERN = re.compile(r"[a-z0-9-]{1,80}")
MODEL_PATTERN = re.compile(r"[a-z][a-z0-9:-]{0,80}")
ERROR_PATTERN = re.compile(r"(CONFIG|DATA|REFUSED|FEDERATION|OUT_OF_TIME|TRAINING|BUG) [0-9a-f]{12}")
ERROR_NUMBER = 900  # above Flower's own error codes: "the site answered with a sealed error"


LARGEST_COUNT = 2**53
MOST_REFERENCES = 8  # models scored in a run beside the federated one and each site's own
MINIMUM_CELL = 3  # patients of a split without which nothing of it leaves; DataSHIELD's default (nfilter.tab)
ENVELOPE_BYTES = 1_000_000  # of a task beside its arrays


@dataclass(frozen=True)
class Task:
    """What the server asks of a site: a kind, the study by hash, the run by name, a round, a model, and
    arrays.
    """

    kind: TaskKind
    study: str
    run: str
    round: int = 0
    model: str = ""
    models: tuple[str, ...] = ()
    layout: str = ""
    arrays: Arrays = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Names the task within its run; the same key means the same work."""
        return f"{self.kind}-{self.round}-{self.model.replace(':', '_')}"


@dataclass(frozen=True)
class Reply:
    """What a site answers: the task it answers, arrays, metrics, words (versions only), and the signed head
    of its ledger as it was before this answer; empty where the site signs none.
    """

    kind: ReplyKind
    task: TaskKind
    study: str
    round: int = 0
    model: str = ""
    layout: str = ""
    arrays: Arrays = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    ledger: Head = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """Exactly what an answer holds."""

    kind: ReplyKind
    arrays: Mapping[str, tuple[str, tuple[int, ...]]]
    metrics: Mapping[str, type]
    words: tuple[str, ...] = ()
    maximum_bytes: int = 0


def comparisons(study: Study) -> int:
    """K, the number of AUROCs of a model: 1 for two classes, else one against the rest for each class."""
    classes = len(study.task.classes)
    return 1 if classes == 2 else classes


def most_models(study: Study) -> int:
    """Models that a run may have scored and placed: the federated one, one of each site, some references."""
    return 1 + len(study.sites) + MOST_REFERENCES


def largest_task(study: Study) -> int:
    """Bytes that a task may take once opened: weights (as large as an update), or histograms."""
    histograms = most_models(study) * comparisons(study) * 2 * BINS * 4
    return max(int(study.rounds.max_update_mb * 1e6), histograms) + ENVELOPE_BYTES


def form_of(task: Task, study: Study, layout: Layout) -> Form:
    """The form of the answer to `task`."""
    arrays, metrics = FORMS[task.kind](task, study, layout)
    words = VERSIONS if task.kind == "ready" else ()
    return Form(REPLY_OF[task.kind], arrays, metrics, words, int(study.rounds.max_update_mb * 1e6))


ArrayForms = dict[str, tuple[str, tuple[int, ...]]]


def _status(task: Task, study: Study, layout: Layout) -> tuple[ArrayForms, dict[str, type]]:
    arrays: ArrayForms = {
        "split_patients": ("int64", (len(SPLITS),)),
        "split_cases": ("int64", (len(SPLITS), len(study.task.classes))),
    }
    arrays["marks"] = MARKS_FORM
    arrays |= overview.FORM if study.overview else {}
    counts = (*FLOW, *(f"excluded_{reason}" for reason in EXCLUSIONS), "overlapping_patients")
    return arrays, dict.fromkeys(counts, int)


def _weights(layout: Layout) -> ArrayForms:
    sizes = layout.sizes()
    return {
        "parameters": ("float32", (sizes["parameters"],)),
        "buffers": ("float32", (sizes["buffers"],)),
        "counters": ("int64", (sizes["counters"],)),
    }


def _update_alone(task: Task, study: Study, layout: Layout) -> tuple[ArrayForms, dict[str, type]]:
    return _weights(layout), {"cases": int, "steps": int, "train_loss": float}


def _update(task: Task, study: Study, layout: Layout) -> tuple[ArrayForms, dict[str, type]]:
    arrays, metrics = _update_alone(task, study, layout)
    told, validation = _validation(task, study, layout)
    return {**arrays, **study.strategy.sent(layout), **told}, {**metrics, **validation}


def _validation(task: Task, study: Study, layout: Layout) -> tuple[ArrayForms, dict[str, type]]:
    arrays: ArrayForms = {"histogram": ("uint32", (comparisons(study), 2, BINS))}
    if isinstance(study.task, Segmentation):
        structures = len(study.task.structures)
        arrays = {"dice": ("float64", (structures,)), "dice_cases": ("int64", (structures,))}
    return arrays, {"validation_loss": float, "validation_cases": int}


def _score(task: Task, study: Study, layout: Layout) -> tuple[ArrayForms, dict[str, type]]:
    if isinstance(study.task, Segmentation):
        return outline_forms(len(study.task.structures)), {"cases": int, "patients": int}
    thresholds, levels = len(study.judgement.net_benefit_at), sum(map(len, study.judgement.levels.values()))
    arrays = score_forms(len(study.task.classes), thresholds) | subgroup_forms(levels, comparisons(study))
    return arrays, {"cases": int, "patients": int}


def _place(task: Task, study: Study, layout: Layout) -> tuple[ArrayForms, dict[str, type]]:
    models, k = len(task.models), comparisons(study)
    if isinstance(study.task, Segmentation):
        links = outline_links_forms(len(study.task.structures), models)
        return {**links, "marks": MARKS_FORM}, {"cases": int}
    linked = linked_forms(models, k).items()
    arrays = {f"{of}_{name}": form for of in ("pooled", "own") for name, form in linked}
    return {**arrays, **calls_forms(models, k), "marks": MARKS_FORM}, {"cases": int}


FORMS = {
    "ready": _status,
    "train": _update,
    "train_alone": _update_alone,
    "validate": _validation,
    "score": _score,
    "place": _place,
}
WITH_WEIGHTS = ("train", "train_alone", "validate", "score")


def read_marks(array: npt.NDArray[Any]) -> dict[str, str]:
    """Name -> digest (hex) of the marks that a site sent, uint8 [MARKS, 32]."""
    return {name: row.tobytes().hex() for name, row in zip(MARKS, array, strict=True)}


def check(reply: Reply, task: Task, study: Study, layout: Layout) -> None:
    """Raise RefusedByPolicy, naming every difference, unless `reply` is exactly what `task` asked for."""
    form = form_of(task, study, layout)
    problems = _envelope_problems(reply, task, form, layout)
    problems += _array_problems(reply.arrays, form)
    problems += _metric_problems(reply.metrics, form)
    problems += _word_problems(reply.words, form)
    if reply.ledger and (fault := head_fault(reply.ledger)):
        problems.append(fault)
    if not problems and task.kind == "score":
        patients = int(reply.metrics["patients"])
        problems += small_subgroups(reply.arrays, study.judgement.levels, patients, MINIMUM_CELL)
    if not problems and task.kind == "ready" and study.overview:
        problems += overview.small_bins(reply.arrays, MINIMUM_CELL)
    if problems:
        raise RefusedByPolicy(f"the message is not a {form.kind} of this task: {'; '.join(problems)}")


def _envelope_problems(reply: Reply, task: Task, form: Form, layout: Layout) -> list[str]:
    expected = {
        "kind": form.kind,
        "task": task.kind,
        "study": task.study,
        "round": task.round,
        "model": task.model,
        "layout": layout.sha256 if form.kind == "update" else "",
    }
    given = {name: getattr(reply, name) for name in expected}
    kinds = {name: (type(value), value) for name, value in expected.items()}
    odd = [name for name, kind in kinds.items() if (type(given[name]), given[name]) != kind]
    return [f"{name} is not the task's" for name in odd]


def _array_problems(arrays: Arrays, form: Form) -> list[str]:
    problems = _name_problems("array", arrays, form.arrays)
    for name in sorted(set(arrays) & set(form.arrays)):
        array, (dtype, shape) = arrays[name], form.arrays[name]
        if str(array.dtype) != dtype or array.shape != shape:
            problems.append(f"array {name} is {array.dtype}{list(array.shape)}, not {dtype}{list(shape)}")
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            problems.append(f"array {name} holds NaN or infinity")
        elif array.dtype.kind == "i" and name != "counters" and (array < 0).any():
            problems.append(f"array {name} holds a count below zero")
    total = sum(array.nbytes for array in arrays.values())
    if form.maximum_bytes and total > form.maximum_bytes:
        problems.append(f"{total:,} bytes are more than the study's {form.maximum_bytes:,}")
    return problems


def _metric_problems(metrics: Metrics, form: Form) -> list[str]:
    problems = _name_problems("metric", metrics, form.metrics)
    for name in sorted(set(metrics) & set(form.metrics)):
        value = metrics[name]
        if type(value) is not form.metrics[name]:
            problems.append(f"metric {name} is not {form.metrics[name].__name__}")
        elif isinstance(value, int) and not 0 <= value <= LARGEST_COUNT:
            problems.append(f"metric {name} is no count")
        elif not np.isfinite(value):
            problems.append(f"metric {name} is not finite")
    return problems


def _word_problems(words: Mapping[str, str], form: Form) -> list[str]:
    problems = _name_problems("word", words, dict.fromkeys(form.words))
    odd = [name for name in form.words if name in words and not _is_version(words[name])]
    return problems + [f"word {name} is not a version number" for name in odd]


def _is_version(word: object) -> bool:
    return isinstance(word, str) and VERSION_PATTERN.fullmatch(word) is not None


def _name_problems(what: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    extra, missing = sorted(set(given) - set(expected)), sorted(set(expected) - set(given))
    problems = [f"{len(extra)} {what}(s) too many"] if extra else []
    return problems + ([f"{what}(s) missing: {', '.join(missing)}"] if missing else [])


def check_task(task: Task, study: Study, layout: Layout) -> None:
    """Refuse a task that doesn't fit the study: the server is checked too. Raises RefusedByPolicy."""
    k, problems = comparisons(study), []
    expected: ArrayForms = _weights(layout) if task.kind in WITH_WEIGHTS else {}
    if task.kind == "train":
        expected |= study.strategy.told(layout)
    if task.kind == "place" and study.task.kind == "classification":
        expected = {"histograms": ("uint32", (len(task.models), k, 2, BINS))}
    if task.kind not in REPLY_OF:
        problems.append("unknown kind of task")
    if task.kind == "validate" and not study.training.chooses_best:
        problems.append("the study chooses no checkpoint")
    if task.study != study.sha256:
        problems.append("the study's hash is not the task's")
    if expected and task.kind != "place" and task.layout != layout.to_json():
        problems.append("the layout of the weights is not this study's network's")
    if not 0 <= task.round <= study.training.rounds or (task.kind == "train") != bool(task.round):
        problems.append("there is no such round")
    if not RUN_PATTERN.fullmatch(task.run):
        problems.append("odd name of a run")
    problems += _model_problems(task, study)
    unfit = _array_problems(task.arrays, Form("status", expected, {}))
    if "histograms" in expected and not unfit:
        unfit = _pool_problems(task.arrays["histograms"])
    if problems or unfit:
        raise RefusedByPolicy(f"the task doesn't fit the study: {'; '.join(problems + unfit)}")


def _model_problems(task: Task, study: Study) -> list[str]:
    problems = []
    if any(not MODEL_PATTERN.fullmatch(name) for name in (*task.models, *filter(None, [task.model]))):
        problems.append("odd name of a model")
    if (task.kind == "score") != bool(task.model) or (task.kind == "place") != bool(task.models):
        problems.append("the task names a model too many or too few")
    if len(set(task.models)) != len(task.models):
        problems.append("the task names a model twice")
    if len(task.models) > most_models(study):
        problems.append(f"the task names more than {most_models(study)} models")
    return problems


def _pool_problems(histograms: npt.NDArray[np.uint32]) -> list[str]:
    """All models judge the same cases, so each model has as many negatives and positives as any other."""
    cases = histograms.sum(axis=3, dtype=np.int64)
    if not len(cases):
        return []
    alike = (cases == cases[0]).all() and len(set(cases[0].sum(axis=1).tolist())) == 1
    return [] if alike else ["the models' histograms are not of the same cases"]


def check_pool(pooled: npt.NDArray[Any], own: npt.NDArray[Any]) -> None:
    """Refuse pooled histograms [models, K, 2, BINS] that don't hold this site's own.

    Raises RefusedByPolicy.
    """
    if pooled.shape != own.shape or (pooled < own).any():
        raise RefusedByPolicy(
            "the pooled histograms don't hold this site's own", hint="ask the coordinator what was pooled"
        )
