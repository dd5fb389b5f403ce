"""What a site answers about its file of scores, so that the rows stay with it: counts and sums that add up.

First the counts by which sites agree on each model's bins (`agreed_bins`), then a `FirstAnswer` in these
bins, and, once the pooled histograms are known, a `SecondAnswer` placed in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedai.agreed_bins import Bins, order_keys
from fedai.calibration import gains
from fedai.metrics import ClusteredMean, Floats, Integers, ScoreHistogram, ThresholdCounts, sum_by_patient
from fedai.placements import PlacementSums
from fedai.precision_recall import influences
from fedai.score_files import SiteScores


@dataclass(frozen=True, eq=False)
class FirstAnswer:
    """Per model: `histograms`; `calls` where a threshold is given, else None; `briers` and, with a threshold,
    net `benefits`, None where a score is no probability."""

    histograms: tuple[ScoreHistogram, ...]
    calls: tuple[ThresholdCounts | None, ...]
    briers: tuple[ClusteredMean | None, ...]
    benefits: tuple[ClusteredMean | None, ...]

    def __add__(self, other: FirstAnswer) -> FirstAnswer:
        pairs = zip(self.histograms, other.histograms, strict=True)
        calls = zip(self.calls, other.calls, strict=True)
        briers = zip(self.briers, other.briers, strict=True)
        benefits = zip(self.benefits, other.benefits, strict=True)
        return FirstAnswer(
            tuple(a + b for a, b in pairs),
            tuple(a + b if a and b else None for a, b in calls),
            tuple(a + b if a and b else None for a, b in briers),
            tuple(a + b if a and b else None for a, b in benefits),
        )

    @property
    def counts(self) -> list[Integers]:
        """Negatives and positives by bin, int64 [2, B] for each model."""
        return [histogram.counts[0] for histogram in self.histograms]


@dataclass(frozen=True, eq=False)
class SecondAnswer:
    """`placements` and, for the average precisions' variance, `precisions`: float64 [models], sums over
    patients of the square of what the patient's cases add (see `precision_recall.influences`)."""

    placements: PlacementSums
    precisions: Floats

    def __add__(self, other: SecondAnswer) -> SecondAnswer:
        return SecondAnswer(self.placements + other.placements, self.precisions + other.precisions)


class SiteRows:
    """The site's side: it holds the rows and answers with sums."""

    def __init__(self, rows: SiteScores) -> None:
        self._rows = rows
        self._keys = order_keys(rows.scores)
        self._patients = (rows.numbers, rows.patients)
        self.site = rows.site

    def count(self, model: int, bins: Bins) -> Integers:
        """Negatives and positives by bin, int64 [2, B]."""
        return bins.count(self._keys[:, model], self._rows.positive)

    def first(self, bins: Sequence[Bins], thresholds: Mapping[str, float]) -> FirstAnswer:
        """In the agreed bins of each model."""
        histograms = tuple(ScoreHistogram(self.count(i, b)[None]) for i, b in enumerate(bins))
        models = range(len(bins))
        return FirstAnswer(
            histograms,
            tuple(self._calls(i, thresholds.get(self._rows.models[i])) for i in models),
            tuple(self._brier(i) for i in models),
            tuple(self._benefit(i, thresholds.get(self._rows.models[i])) for i in models),
        )

    def second(self, bins: Sequence[Bins], histograms: Sequence[ScoreHistogram]) -> SecondAnswer:
        """Placed in the pooled histograms."""
        added = self._look_up(bins, [influences(h.counts[0]) for h in histograms])
        by_patient = sum_by_patient(added, *self._patients)
        return SecondAnswer(self.placements(bins, histograms), (by_patient**2).sum(axis=0))

    def placements(self, bins: Sequence[Bins], histograms: Sequence[ScoreHistogram]) -> PlacementSums:
        """Placed in these histograms: the pooled ones, or the site's own."""
        placed = self._look_up(bins, [np.nan_to_num(h.placements()[0]) for h in histograms])
        aurocs = np.stack([h.auroc() for h in histograms])
        return PlacementSums.of_placed(
            placed[:, :, None], aurocs, self._rows.positive[:, None], *self._patients
        )

    def _look_up(self, bins: Sequence[Bins], tables: Sequence[Floats]) -> Floats:
        """Each case's entry [N, models] in each model's table [2, B]."""
        side = self._rows.positive.astype(np.int64)
        pairs = enumerate(zip(bins, tables, strict=True))
        return np.stack([table[side, b.find(self._keys[:, i])] for i, (b, table) in pairs], axis=1)

    def _calls(self, model: int, threshold: float | None) -> ThresholdCounts | None:
        if threshold is None:
            return None
        called = self._rows.scores[:, [model]] >= threshold
        return ThresholdCounts.of_calls(called, self._rows.positive[:, None], *self._patients, threshold)

    def _brier(self, model: int) -> ClusteredMean | None:
        p = self._rows.scores[:, model]
        if not self._are_probabilities(model):
            return None
        return ClusteredMean.of((p - self._rows.positive) ** 2, *self._patients)

    def _benefit(self, model: int, threshold: float | None) -> ClusteredMean | None:
        if threshold is None or not 0 < threshold < 1 or not self._are_probabilities(model):
            return None
        called = self._rows.scores[:, model] >= threshold
        return ClusteredMean.of(gains(called, self._rows.positive, threshold), *self._patients)

    def _are_probabilities(self, model: int) -> bool:
        p = self._rows.scores[:, model]
        return bool(((p >= 0) & (p <= 1)).all())
