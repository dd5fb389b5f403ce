"""Random federations of clustered scores, and the same statistics computed plainly on raw rows."""

from __future__ import annotations

import functools
import hashlib
import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedai.judgement import Judgement, pool_histogram
from fedai.linking import JointCalls, Linked
from fedai.score import Score


@dataclass(frozen=True)
class Cases:
    """One site's test cases: softmax scores of each model [N, C], labels [N], patients [N]."""

    scores: dict[str, NDArray[np.float64]]
    labels: NDArray[np.int64]
    patients: list[str]


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True), dtype=np.float64)


def draw_cases(
    rng: np.random.Generator,
    site: str,
    patients: int,
    *,
    skill: dict[str, float],
    classes: int = 2,
    prevalence: float = 0.3,
    most_images: int = 3,
) -> Cases:
    """Patients with 1 to `most_images` images that share a label tendency and a shift of the score."""
    numbers = np.repeat(np.arange(patients), rng.integers(1, most_images + 1, patients))
    if classes == 2:
        ill = rng.random(patients) < prevalence
        labels = (ill[numbers] & (rng.random(len(numbers)) < 0.8)).astype(np.int64)
    else:
        labels = rng.integers(0, classes, patients)[numbers]
    truth = np.eye(classes)[labels]
    shared = rng.normal(size=(patients, classes))[numbers]
    private = rng.normal(size=truth.shape)
    scores = {}
    for model, d in skill.items():
        own = rng.normal(size=(patients, classes))[numbers] + rng.normal(size=truth.shape)
        scores[model] = softmax(d * truth + 0.6 * shared + 0.4 * private + 0.4 * own)
    return Cases(scores, labels, [f"{site}-{n}" for n in numbers])


def judgement_of(
    sites: dict[str, Cases],
    classes: tuple[str, ...],
    threshold: float = 0.5,
    decision_thresholds: tuple[float, ...] = (0.1, 0.2, 0.5),
) -> Judgement:
    """What a federation does: every site's scores, histograms pooled, then what links its models."""
    models = tuple(next(iter(sites.values())).scores)
    scores = {
        name: {m: Score.of(c.scores[m], c.labels, c.patients, threshold, decision_thresholds) for m in models}
        for name, c in sites.items()
    }
    pools = [pool_histogram(scores, m) for m in models]
    pooled, own, calls, marks = [], {}, {}, {}
    for name, c in sites.items():
        seed, by_model = repr((name, c.patients)).encode(), [c.scores[m] for m in models]
        histograms = [scores[name][m].histogram for m in models]
        pooled.append(Linked.of(by_model, pools, c.labels, c.patients, seed))
        own[name] = Linked.of(by_model, histograms, c.labels, c.patients, seed)
        calls[name] = JointCalls.of(by_model, c.labels, c.patients, threshold, seed)
        parts = {"test_cases": c.patients, "test_labels": c.labels.tolist(), "draws": seed, "snapshot": name}
        marks[name] = {key: hashlib.sha256(repr(part).encode()).hexdigest() for key, part in parts.items()}
    total = functools.reduce(operator.add, pooled)
    return Judgement(models, classes, threshold, scores, total, own, calls, marks)


def raw_auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Mann-Whitney over all pairs."""
    pairs = kernel(scores[positive], scores[~positive])
    return float(pairs.mean()) if pairs.size else float("nan")


def kernel(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])


def raw_covariance(
    a: NDArray[np.float64], b: NDArray[np.float64], positive: NDArray[np.bool_], patients: list[str]
) -> float:
    """Obuchowski 1997, written out patient by patient, for two models on the same cases."""
    names = np.asarray(patients)
    m, n = int(positive.sum()), int((~positive).sum())
    sums = []
    for s in (a, b):
        pairs = kernel(s[positive], s[~positive])
        theta = pairs.mean()
        v10, v01 = pairs.mean(axis=1) - theta, pairs.mean(axis=0) - theta
        sums.append(
            [(v10[names[positive] == i].sum(), v01[names[~positive] == i].sum()) for i in np.unique(names)]
        )
    x, y = np.array(sums[0]), np.array(sums[1])
    i10, i01, i = len(set(names[positive])), len(set(names[~positive])), len(set(names))
    s10 = i10 / ((i10 - 1) * m) * (x[:, 0] * y[:, 0]).sum()
    s01 = i01 / ((i01 - 1) * n) * (x[:, 1] * y[:, 1]).sum()
    s11 = i / (i - 1) * (x[:, 0] * y[:, 1]).sum()
    s11_turned = i / (i - 1) * (x[:, 1] * y[:, 0]).sum()
    return float(s10 / m + s01 / n + (s11 + s11_turned) / (m * n))


def classic_delong(a: NDArray[np.float64], b: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """DeLong 1988 for independent cases."""
    v = [kernel(s[positive], s[~positive]) for s in (a, b)]
    s10 = np.cov(v[0].mean(axis=1), v[1].mean(axis=1))[0, 1]
    s01 = np.cov(v[0].mean(axis=0), v[1].mean(axis=0))[0, 1]
    return float(s10 / positive.sum() + s01 / (~positive).sum())
