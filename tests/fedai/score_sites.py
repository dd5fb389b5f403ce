"""Random score files: sites' rows as arrays and as CSV, and all rows together for plain computations."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedai.score_files import SiteScores


@dataclass(frozen=True)
class Rows:
    """All sites' rows: scores [N, models], positive [N], patients [N] (with their site's name)."""

    scores: NDArray[np.float64]
    positive: NDArray[np.bool_]
    patients: list[str]


def draw_site(
    rng: np.random.Generator,
    name: str,
    patients: int,
    *,
    skill: Sequence[float] = (1.6, 1.2),
    prevalence: float = 0.4,
    most_images: int = 3,
) -> SiteScores:
    """Logits of patients with 1 to `most_images` images; an ill patient may have negative images too."""
    numbers = np.repeat(np.arange(patients), rng.integers(1, most_images + 1, patients))
    positive = (rng.random(patients) < prevalence)[numbers] & (rng.random(len(numbers)) < 0.85)
    shared = rng.normal(size=(patients, 1))[numbers]
    noise = 0.6 * shared + 0.8 * rng.normal(size=(len(numbers), len(skill)))
    scores = np.array(skill) * positive[:, None] + noise
    models = tuple(f"m{i}" for i in range(len(skill)))
    return SiteScores(name, models, scores, positive, numbers, patients)


def draw_sites(seed: int, *patients: int, **options: object) -> list[SiteScores]:
    rng = np.random.default_rng(seed)
    return [draw_site(rng, f"s{i}", n, **options) for i, n in enumerate(patients)]  # type: ignore[arg-type]


def rows_of(sites: Sequence[SiteScores]) -> Rows:
    return Rows(
        np.concatenate([s.scores for s in sites]),
        np.concatenate([s.positive for s in sites]),
        [f"{s.site}/{n}" for s in sites for n in s.numbers],
    )


def write_csv(site: SiteScores, folder: Path) -> Path:
    path = folder / f"{site.site}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["patient", "label", *site.models])
        for number, positive, scores in zip(site.numbers, site.positive, site.scores, strict=True):
            writer.writerow([f"p{number}", int(positive), *(repr(float(s)) for s in scores)])
    return path
