"""Invented federations of clustered scores whose true AUROC is known, and what `fedai compare` says."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from fedai.errors import DataError
from fedai.score_comparison import ScoreComparison, compare_scores
from fedai.score_files import SiteScores

ILL_SHOWS = 0.85  # how often an image of an ill patient is positive


@dataclass(frozen=True, eq=False)
class Federation:
    """`sites`, and the AUROC that all models have in the population that they were drawn from."""

    sites: list[SiteScores]
    auroc: float


@dataclass(frozen=True, eq=False)
class Population:
    """Per site [S]: patients, share of ill ones, shift of scores. `mean`, `sd` of positives' scores against
    0 and 1 of negatives; `likeness`: correlation of a patient's images; `images`: the most a patient has."""

    patients: NDArray[np.int64]
    ill: NDArray[np.float64]
    shift: NDArray[np.float64]
    mean: float
    sd: float
    likeness: float
    images: int

    @property
    def auroc(self) -> float:
        positive = self.patients * self.ill * ILL_SHOWS
        negative = self.patients - positive
        apart = (self.mean + self.shift[:, None] - self.shift[None, :]) / math.hypot(1, self.sd)
        weights = np.outer(positive / positive.sum(), negative / negative.sum())
        return float((weights * ndtr(apart)).sum())


def draw(rng: np.random.Generator, prevalence: float, models: int) -> Federation:
    """Three to six sites of 40 to 200 patients with up to four images each; each population is another one.

    Models have one and the same AUROC (0.7 to 0.95 within a site), and err alike in part.
    """
    sites = int(rng.integers(3, 7))
    uneven = rng.uniform(0.6, 1.4, sites)
    sd = float(rng.choice([1.0, 1.5]))
    population = Population(
        rng.integers(40, 201, sites),
        np.minimum(0.95, prevalence * uneven / uneven.mean()),
        rng.normal(0, 0.2, sites),
        float(ndtri(rng.choice([0.7, 0.8, 0.9, 0.95])) * math.hypot(1, sd)),
        sd,
        float(rng.choice([0.3, 0.6, 0.9])),
        int(rng.integers(2, 5)),
    )
    names = tuple(f"m{i}" for i in range(models))
    drawn = [rows_of_site(rng, population, s, names) for s in range(sites)]
    return Federation(drawn, population.auroc)


def rows_of_site(rng: np.random.Generator, of: Population, s: int, names: tuple[str, ...]) -> SiteScores:
    patients = int(of.patients[s])
    numbers = np.repeat(np.arange(patients), rng.integers(1, of.images + 1, patients))
    ill = rng.random(patients) < of.ill[s]
    positive = ill[numbers] & (rng.random(len(numbers)) < ILL_SHOWS)
    by_patient = _alike(rng, (patients, len(names)))[numbers]
    noise = math.sqrt(of.likeness) * by_patient
    noise += math.sqrt(1 - of.likeness) * _alike(rng, (len(numbers), len(names)))
    spread = np.where(positive, of.sd, 1.0)[:, None]
    scores = of.shift[s] + of.mean * positive[:, None] + spread * noise
    return SiteScores(f"site{s}", names, scores, positive, numbers.astype(np.int64), patients)


def _alike(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Standard normal [N, models], correlated by a half between models."""
    shared = rng.normal(size=(shape[0], 1))
    return np.asarray(math.sqrt(0.5) * shared + math.sqrt(0.5) * rng.normal(size=shape))


def as_images(site: SiteScores) -> SiteScores:
    """The mistake: each image a patient of its own. First model alone."""
    cases = len(site.numbers)
    return replace(
        site, models=site.models[:1], scores=site.scores[:, :1], numbers=np.arange(cases), patients=cases
    )


@dataclass
class Tally:
    """Counts over federations: intervals asked, of those too high or too low, and tests that said p < 5%."""

    federations: int = 0
    refused: int = 0
    intervals: int = 0
    absent: int = 0
    above: int = 0
    below: int = 0
    image_intervals: int = 0
    image_covered: int = 0
    tests: int = 0
    rejected: int = 0
    widths: float = 0.0

    @property
    def coverage(self) -> float:
        return 1 - (self.above + self.below) / self.intervals

    def add(self, drawn: Federation) -> None:
        """One federation of two models: their intervals, their difference, and the interval by images."""
        self.federations += 1
        try:
            found = compare_scores(drawn.sites)
        except DataError:
            self.refused += 1
            return
        for model in found.models:
            self._interval(model.auroc.ci95, drawn.auroc)
        self.tests += 1
        self.rejected += (found.pairs[0].found.p or 1.0) < 0.05
        wrong = compare_scores([as_images(site) for site in drawn.sites]).models[0].auroc.ci95
        if wrong:
            self.image_intervals += 1
            self.image_covered += wrong[0] <= drawn.auroc <= wrong[1]

    def _interval(self, ci95: tuple[float, float] | None, truth: float) -> None:
        if ci95 is None:
            self.absent += 1
            return
        self.intervals += 1
        self.above += ci95[0] > truth
        self.below += ci95[1] < truth
        self.widths += ci95[1] - ci95[0]


def tally(prevalence: float, federations: int, seed: int) -> Tally:
    rng = np.random.default_rng([seed, round(prevalence * 1000)])
    made = Tally()
    for _ in range(federations):
        made.add(draw(rng, prevalence, 2))
    return made


def family(models: int, prevalence: float, federations: int, seed: int) -> tuple[int, int, int]:
    """Federations answered, those with any p below 5% among all pairs, and any after Holm's adjustment."""
    rng = np.random.default_rng([seed, models])
    answered = plain = adjusted = 0
    for found in _answered(rng, models, prevalence, federations):
        answered += 1
        plain += any((pair.found.p or 1.0) < 0.05 for pair in found.pairs)
        adjusted += any((pair.p_adjusted or 1.0) < 0.05 for pair in found.pairs)
    return answered, plain, adjusted


def _answered(
    rng: np.random.Generator, models: int, prevalence: float, federations: int
) -> Iterator[ScoreComparison]:
    for _ in range(federations):
        drawn = draw(rng, prevalence, models)
        try:
            yield compare_scores(drawn.sites)
        except DataError:
            continue


def margin_of_error(share: float, size: int) -> float:
    """Two standard errors of a share."""
    return 2 * math.sqrt(share * (1 - share) / size) if size else math.nan
