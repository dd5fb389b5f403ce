"""The judgement of a run as it rests at the server: every model's score at every site, and what links them.

It is made in two rounds. In the first, each site answers one `Score` per model. The server adds the
histograms and sends the pooled ones out; in the second, each site answers two `Linked`, one against the
pooled histograms, one against its own, and its `JointCalls`.
"""

from __future__ import annotations

import functools
import operator
from base64 import b64decode, b64encode
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedai.errors import ConfigError, FederationError
from fedai.linking import JointCalls, Linked, calls_forms, linked_forms
from fedai.metrics import BINS, Arrays, Integers, ScoreHistogram
from fedai.score import Score, score_forms
from fedai.subgroups import Subgroup

Json = dict[str, Any]
FORMS = (*score_forms(2, 1).items(), *linked_forms(1, 1).items(), *calls_forms(1, 1).items())
COUNTS = frozenset(name for name, (dtype, _) in FORMS if dtype == "int64")
Subgroups = Mapping[str, Mapping[str, tuple[Subgroup, ...]]]  # site -> model -> in the order of `levels`


@dataclass(frozen=True, eq=False)
class Judgement:
    """`scores`: site -> model -> Score. `pooled`: what links the models against the pooled histograms, of all
    sites. `own`: site -> the same against that site's own histograms. `calls`: site -> joint calls. Entries
    follow `models`, then classes. `marks`: site -> name (`wire.MARKS`) -> keyed digest, hex. `left_out`:
    sites of the run that this is not about, and why. `levels`: variable -> its subgroups, of `subgroups`.
    """

    models: tuple[str, ...]
    classes: tuple[str, ...]
    threshold: float
    scores: Mapping[str, Mapping[str, Score]]
    pooled: Linked
    own: Mapping[str, Linked]
    calls: Mapping[str, JointCalls]
    marks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subgroups: Subgroups = field(default_factory=dict)

    def __post_init__(self) -> None:
        entries = len(self.models) * len(self.tasks)
        sums = [linked.placements for linked in (self.pooled, *self.own.values())]
        if set(self.own) != set(self.scores) or any(s.sums.shape != (2, entries) for s in sums):
            raise FederationError("the judgement's scores and placement sums don't belong together")
        if any(s.cases.shape[1] != len(self.tasks) for s in sums):
            raise FederationError("the judgement's placement sums are of other classes")
        calls = self.calls.values()
        if set(self.calls) != set(self.scores) or any(c.both.shape[1] != entries for c in calls):
            raise FederationError("the judgement's scores and joint calls don't belong together")
        if any(set(by_model) != set(self.models) for by_model in self.scores.values()):
            raise FederationError("a site's judgement lacks a model or has one too many")
        number = sum(map(len, self.levels.values()))
        told = [of for by_model in self.subgroups.values() for of in by_model.values()]
        same = all(set(by_model) == set(self.models) for by_model in self.subgroups.values())
        if not same or any(len(of) != number for of in told):
            raise FederationError("the judgement's subgroups and models don't belong together")

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.scores)

    @property
    def decision_thresholds(self) -> tuple[float, ...]:
        """Of the decision curves."""
        score = next(iter(next(iter(self.scores.values())).values()))
        return score.decision.thresholds

    @property
    def tasks(self) -> tuple[str, ...]:
        """The classes that have an AUROC: the positive one of two, or each of more."""
        return self.classes[1:] if len(self.classes) == 2 else self.classes

    def merged(self, model: str) -> Score:
        """The model's score over all sites."""
        return functools.reduce(operator.add, [by_model[model] for by_model in self.scores.values()])

    def to_json(self) -> Json:
        """Plain JSON; histograms as the bins that are filled."""
        return {
            "models": list(self.models),
            "classes": list(self.classes),
            "threshold": self.threshold,
            "scores": {
                site: {model: _score_to_json(score) for model, score in by_model.items()}
                for site, by_model in self.scores.items()
            },
            "pooled": arrays_to_json(self.pooled.to_arrays()),
            "own": {site: arrays_to_json(linked.to_arrays()) for site, linked in self.own.items()},
            "calls": {site: arrays_to_json(calls.to_arrays()) for site, calls in self.calls.items()},
            "marks": {site: dict(marks) for site, marks in self.marks.items()},
            "left_out": dict(self.left_out),
            **({"levels": self.levels, "subgroups": self._subgroups_to_json()} if self.levels else {}),
        }

    def _subgroups_to_json(self) -> Json:
        return {
            site: {model: [arrays_to_json(one.to_arrays()) for one in of] for model, of in by_model.items()}
            for site, by_model in self.subgroups.items()
        }

    @classmethod
    def from_json(cls, data: Json) -> Judgement:
        """The reverse of `to_json`. Raises ConfigError for anything else."""
        with _part("models, classes or threshold"):
            models, classes = tuple(data["models"]), tuple(data["classes"])
            threshold = float(data["threshold"])
        with _part("scores"):
            scores = {
                site: {model: _score_from_json(score) for model, score in by_model.items()}
                for site, by_model in data["scores"].items()
            }
        with _part("pooled"):
            pooled = Linked.from_arrays(arrays_from_json(data["pooled"]))
        with _part("own"):
            own = {site: Linked.from_arrays(arrays_from_json(sums)) for site, sums in data["own"].items()}
        with _part("calls"):
            calls = {s: JointCalls.from_arrays(arrays_from_json(c)) for s, c in data["calls"].items()}
        with _part("marks"):
            marks = {site: _words(told) for site, told in data["marks"].items()}
        with _part("left_out"):
            left_out = _words(data.get("left_out", {}))
        with _part("subgroups"):
            levels = {str(name): tuple(map(str, of)) for name, of in data.get("levels", {}).items()}
            subgroups = {
                site: {model: _subgroups_from_json(of, threshold) for model, of in told.items()}
                for site, told in data.get("subgroups", {}).items()
            }
        with _part("models, scores, pooled, own and calls together"):
            parts = (scores, pooled, own, calls, marks, left_out, levels, subgroups)
            return cls(models, classes, threshold, *parts)


def _words(told: Json) -> dict[str, str]:
    return {str(key): str(value) for key, value in told.items()}


@contextmanager
def _part(name: str) -> Iterator[None]:
    """Say in words which part of a judgement is damaged."""
    try:
        yield
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError, FederationError) as error:
        what = f"{error.args[0]} is missing" if type(error) is KeyError else "of another form than expected"
        raise ConfigError(
            f"not a judgement of this version of fedai: {name}: {what}",
            hint="was the file changed, or made by another version?",
        ) from None


def pool_histogram(scores: Mapping[str, Mapping[str, Score]], model: str) -> ScoreHistogram:
    """The pooled histogram of a model: what the server sends out for the second round."""
    return functools.reduce(operator.add, [by_model[model].histogram for by_model in scores.values()])


def _score_to_json(score: Score) -> Json:
    arrays = score.to_arrays()
    del arrays["histogram"]
    counts = [[_sparse(side) for side in sides] for sides in score.histogram.counts]
    return {"histogram": counts, **arrays_to_json(arrays)}


def _score_from_json(data: Json) -> Score:
    counts = np.array([[_dense(side) for side in sides] for sides in data["histogram"]], dtype=np.int64)
    rest = {name: value for name, value in data.items() if name != "histogram"}
    return Score.from_arrays({"histogram": counts, **arrays_from_json(rest)})


def _subgroups_from_json(data: list[Json], threshold: float) -> tuple[Subgroup, ...]:
    return tuple(Subgroup.from_arrays(arrays_from_json(one), threshold) for one in data)


def _sparse(counts: Integers) -> Json:
    filled = np.flatnonzero(counts)
    return {"bins": filled.tolist(), "counts": counts[filled].tolist()}


def _dense(data: Json) -> Integers:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[data["bins"]] = data["counts"]
    return counts


def arrays_to_json(arrays: Arrays) -> Json:
    """Numbers as they are; float32 (replicates) packed, little-endian, in base 64."""
    return {
        name: {"float32": b64encode(array.astype("<f4").tobytes()).decode(), "shape": list(array.shape)}
        if array.dtype == np.float32
        else array.tolist()
        for name, array in arrays.items()
    }


def arrays_from_json(data: Json, counts: Container[str] = COUNTS) -> Arrays:
    """The reverse, with a type for each array whatever its numbers look like; `counts` are int64."""
    return {name: _array(value, np.int64 if name in counts else np.float64) for name, value in data.items()}


def _array(value: Any, kind: type) -> NDArray[Any]:
    if isinstance(value, dict):
        packed = np.frombuffer(b64decode(value["float32"], validate=True), "<f4")
        return packed.reshape(value["shape"]).astype(np.float32)
    return np.array(value, kind)
