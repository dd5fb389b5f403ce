"""What the images of a study are like at each site, before any training: histograms over bins that are the
same everywhere (`overview: true` in the study), so that a mismatch is seen before a night is spent on it.

A bin of too few patients is one with its neighbours, until there are enough; a measure that too few patients
have, or lack, isn't told of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
EDGES: dict[str, tuple[float, ...]] = {  # ascending: a bin is from one edge on, to below the next
    "spacing_mm": (0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.3, 0.5, 0.7, 0.9, 1.2, 2, 4),
    "slice_thickness_mm": (0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 20),
    "longer_side_px": (65, 129, 257, 385, 513, 769, 1025, 1281, 1537, 2049, 2561, 3073, 3585, 4097, 6145),
    "intensity": (-800, -200, -50, 0, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200),
}
BINS = 16
FORM: dict[str, tuple[str, tuple[int, ...]]] = {
    "overview_images": ("int64", (len(EDGES), BINS)),
    "overview_starts": ("int64", (len(EDGES), BINS)),
}


def overview_arrays(
    values: Mapping[str, Sequence[float | None]], patients: Sequence[str], cell: int
) -> dict[str, Counts]:
    """What is told of images, by FORM. `values`: measure -> of each image, None where it isn't known;
    `patients`: whose the images are; `cell`: patients that a bin has at least.

    overview_images: images in each bin, at the first of bins that are one; overview_starts: which that is.
    """
    told = [_histogram(values[name], patients, edges, cell) for name, edges in EDGES.items()]
    images, starts = zip(*told, strict=True)
    return {"overview_images": np.stack(images), "overview_starts": np.stack(starts)}


def _histogram(
    values: Sequence[float | None], patients: Sequence[str], edges: Sequence[float], cell: int
) -> tuple[Counts, Counts]:
    images, starts = np.zeros(BINS, dtype=np.int64), np.arange(BINS, dtype=np.int64)
    having: list[set[str]] = [set() for _ in range(BINS)]
    lacking: set[str] = set()
    for value, patient in zip(values, patients, strict=True):
        if value is None:
            lacking.add(patient)
            continue
        at = int(np.digitize(value, edges))
        images[at] += 1
        having[at].add(patient)
    if 0 < len(lacking) < cell or len(set().union(*having)) < cell:
        return np.zeros_like(images), starts
    groups: list[tuple[int, set[str]]] = []  # first bin, patients
    for at in range(BINS):
        if groups and 0 < len(groups[-1][1]) < cell:
            groups[-1][1].update(having[at])
        else:
            groups.append((at, set(having[at])))
    while 0 < len(groups[-1][1]) < cell:  # nothing is left above: with those below
        groups[-2][1].update(groups.pop()[1])
    for first, _ in groups:
        starts[first:] = first
    merged = np.zeros_like(images)
    np.add.at(merged, starts, images)
    return merged, starts


def small_bins(arrays: Mapping[str, npt.NDArray[Any]], cell: int) -> list[str]:
    """What is wrong with arrays of FORM: bins that aren't one with others in order, or of fewer than `cell`
    images.
    """
    images, starts = arrays["overview_images"], arrays["overview_starts"]
    own = np.arange(BINS)
    problems = []
    for name, count, start in zip(EDGES, images, starts, strict=True):
        joined = (start <= own).all() and (np.diff(start) >= 0).all() and (start[start] == start).all()
        if not joined or count[start != own].any():
            problems.append(f"the bins of {name} are not in order")
        elif ((count > 0) & (count < cell)).any():
            problems.append(f"a bin of {name} is of fewer than {cell} images")
    return problems


def read_overview(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[dict[str, float | int | None]]]:
    """Measure -> its bins that hold images: `at_least` and `below` (None: no end), and `images`."""
    found: dict[str, list[dict[str, float | int | None]]] = {}
    both = zip(EDGES.items(), arrays["overview_images"], arrays["overview_starts"], strict=True)
    for (name, edges), images, starts in both:
        ends = (None, *edges), (*edges, None)
        last = {int(start): number for number, start in enumerate(starts)}
        found[name] = [
            {"at_least": ends[0][first], "below": ends[1][last[first]], "images": int(images[first])}
            for first in sorted(last)
            if images[first]
        ]
    return found


def overview_rows(sites: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> list[tuple[str, ...]]:
    """(measure, site, images, where the middle one of them is, where all are)."""
    rows: list[tuple[str, ...]] = []
    for name in EDGES:
        for site, measures in sites.items():
            bins = measures[name]
            total = sum(one["images"] for one in bins)
            if not total:
                rows.append((name, site, "-", "not told, or not known", ""))
                continue
            sums = np.cumsum([one["images"] for one in bins])
            middle = bins[int(np.searchsorted(sums, total / 2))]
            whole = {"at_least": bins[0]["at_least"], "below": bins[-1]["below"]}
            rows.append((name, site, str(total), _span(middle), _span(whole)))
    return rows


def apart(sites: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> list[str]:
    """Measures in which no bin of a site touches any of another's: they may not be the same kind of image."""
    found = []
    for name in EDGES:
        spans = {site: _ends(measures[name]) for site, measures in sites.items() if measures[name]}
        for site, (low, high) in spans.items():
            others = [ends for other, ends in spans.items() if other != site]
            if others and all(high <= below or above <= low for below, above in others):
                found.append(f"{name}: {site}'s images are like no other site's")
    return found


def _ends(bins: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    low, high = bins[0]["at_least"], bins[-1]["below"]
    return (-np.inf if low is None else low, np.inf if high is None else high)


def _span(one: Mapping[str, Any]) -> str:
    low, high = one["at_least"], one["below"]
    if low is None or high is None:
        return "any" if low is high else f"below {high:g}" if low is None else f"{low:g} and more"
    return f"{low:g} to {high:g}"


def values_of(traits: Iterable[Any]) -> dict[str, list[float | None]]:
    """Measure -> of each image, from what has these measures as attributes."""
    known = list(traits)
    return {name: [getattr(one, name) for one in known] for name in EDGES}
