"""The judgement of a run as it rests at the server: every model's score at every site, and what links them.

It is made in two rounds. In the first, each site answers one `Score` per model. The server adds the
histograms and sends the pooled ones out; in the second, each site answers two `PlacementSums`: one against
the pooled histograms, one against its own.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedai.errors import ConfigError, FederationError
from fedai.metrics import BINS, Integers, Score, ScoreHistogram
from fedai.placements import PlacementSums

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Judgement:
    """`scores`: site -> model -> Score. `pooled`: placement sums against the pooled histograms, of all sites.

    `own`: site -> placement sums against that site's own histograms. Their entries follow `models`, then
    classes. `left_out`: sites of the run that this is not about, and why.
    """

    models: tuple[str, ...]
    classes: tuple[str, ...]
    threshold: float
    scores: Mapping[str, Mapping[str, Score]]
    pooled: PlacementSums
    own: Mapping[str, PlacementSums]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entries = len(self.models) * len(self.tasks)
        sums = [self.pooled, *self.own.values()]
        if set(self.own) != set(self.scores) or any(s.sums.shape != (2, entries) for s in sums):
            raise FederationError("the judgement's scores and placement sums don't belong together")
        if any(sums.cases.shape[1] != len(self.tasks) for sums in [self.pooled, *self.own.values()]):
            raise FederationError("the judgement's placement sums are of other classes")
        if any(set(by_model) != set(self.models) for by_model in self.scores.values()):
            raise FederationError("a site's judgement lacks a model or has one too many")

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.scores)

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
            "pooled": _placements_to_json(self.pooled),
            "own": {site: _placements_to_json(sums) for site, sums in self.own.items()},
            "left_out": dict(self.left_out),
        }

    @classmethod
    def from_json(cls, data: Json) -> Judgement:
        """The reverse of `to_json`. Raises ConfigError for anything else."""
        with _part("models, classes or threshold"):
            models, classes = tuple(data["models"]), tuple(data["classes"])
            threshold = float(data["threshold"])
        with _part("scores"):
            scores = {
                site: {model: _score_from_json(score, threshold) for model, score in by_model.items()}
                for site, by_model in data["scores"].items()
            }
        with _part("pooled"):
            pooled = _placements_from_json(data["pooled"])
        with _part("own"):
            own = {site: _placements_from_json(sums) for site, sums in data["own"].items()}
        with _part("left_out"):
            left_out = {str(site): str(why) for site, why in data.get("left_out", {}).items()}
        with _part("models, scores, pooled and own together"):
            return cls(models, classes, threshold, scores, pooled, own, left_out)


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
    return {
        "histogram": [[_sparse(side) for side in sides] for sides in score.histogram.counts],
        "counts": score.calls.counts.tolist(),
        "squares": score.calls.squares.tolist(),
        "patients": score.calls.patients.tolist(),
        "brier": [score.brier.total, score.brier.weight],
    }


def _score_from_json(data: Json, threshold: float) -> Score:
    counts = np.array([[_dense(side) for side in sides] for sides in data["histogram"]], dtype=np.int64)
    calls = {
        f"threshold_{name}": np.array(data[name], np.int64) for name in ("counts", "squares", "patients")
    }
    brier = np.array(data["brier"], np.float64)
    return Score.from_arrays(
        {"histogram": counts, "threshold": np.array([threshold]), "brier": brier, **calls}
    )


def _sparse(counts: Integers) -> Json:
    filled = np.flatnonzero(counts)
    return {"bins": filled.tolist(), "counts": counts[filled].tolist()}


def _dense(data: Json) -> Integers:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[data["bins"]] = data["counts"]
    return counts


def _placements_to_json(sums: PlacementSums) -> Json:
    return {
        "products": sums.products.tolist(),
        "sums": sums.sums.tolist(),
        "cases": sums.cases.tolist(),
        "members": sums.members.tolist(),
        "patients": sums.patients,
    }


def _placements_from_json(data: Json) -> PlacementSums:
    arrays = {f"placement_{name}": np.array(data[name], np.float64) for name in ("products", "sums")}
    arrays |= {f"placement_{name}": np.array(data[name], np.int64) for name in ("cases", "members")}
    return PlacementSums.from_arrays({**arrays, "placement_patients": np.array([data["patients"]], np.int64)})
