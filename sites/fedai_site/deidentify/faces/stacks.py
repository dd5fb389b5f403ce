"""From the objects of a series to stacks of parallel slices: where each frame lies, and what its numbers
mean.

One object may hold one slice or hundreds (functional groups, PS3.3 C.7.6.16); a series may hold several
stacks (localizers), and a stack several volumes (time points, echoes, diffusion directions).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from fedai_site.deidentify.faces.findings import NoFit
from fedai_site.deidentify.faces.grid import Affine, Grid, Volume, to_grid

Vector = NDArray[np.float64]
PARALLEL = 0.9995  # cosine of the angle between rows, and between columns, of one stack
SAME_PLACE = 0.05  # mm
EVEN = 0.05  # of a gap between slices, by which others may differ
STRAIGHT = 3.0  # mm by which a slice may lie beside the line of the others
WIDEST_GAP = 30.0  # mm
LEAST_SLICES = 5
LEAST_EXTENT = 40.0  # mm
COARSEST = 10.5  # mm from slice to slice: no surface is seen in slices further apart
SPACING_OF_SLICE = 3.0  # mm


@dataclass(frozen=True)
class Frame:
    """One slice: object and frame number, the middle of its first pixel, the steps to the next column and
    row, in LPS mm; stored values are times `slope` plus `intercept`. `order`: what sorts frames of one
    place.
    """

    item: int
    number: int
    origin: Vector
    across: Vector
    down: Vector
    rows: int
    columns: int
    slope: float
    intercept: float
    order: tuple[float, str, int]

    @property
    def normal(self) -> Vector:
        """Unit vector at right angles to the slice."""
        normal = np.cross(self.across, self.down)
        return np.asarray(normal / np.linalg.norm(normal))

    def affine(self) -> Affine:
        """(column, row, 0, 1) to LPS mm: the slice as a volume of one."""
        affine = np.eye(4)
        affine[:3] = np.column_stack([self.across, self.down, self.normal, self.origin])
        return affine


@dataclass(frozen=True)
class Stack:
    """Parallel frames, sorted along their normal: `places[i]` are those that lie at one place, in order."""

    places: tuple[tuple[Frame, ...], ...]

    @property
    def first(self) -> Frame:
        return self.places[0][0]

    @property
    def frames(self) -> list[Frame]:
        return [frame for place in self.places for frame in place]

    def volume(self, number: int) -> list[Frame]:
        """The frames of one of the volumes; where a place has fewer, its last."""
        return [place[min(number, len(place) - 1)] for place in self.places]

    @property
    def positions(self) -> Vector:
        """Distances of the places along the normal, mm, rising."""
        return np.array([place[0].origin @ self.first.normal for place in self.places])

    @property
    def is_surface(self) -> bool:
        """Whether a surface could be reconstructed from it at all."""
        positions = self.positions
        if len(positions) < LEAST_SLICES or positions[-1] - positions[0] < LEAST_EXTENT:
            return False
        return bool(np.median(np.diff(positions)) <= COARSEST)


def stacks_of(frames: Iterable[Frame]) -> list[Stack]:
    """Frames by orientation, size and spacing. The order of `frames` doesn't matter."""
    groups: list[list[Frame]] = []
    for frame in sorted(frames, key=lambda frame: (*frame.origin.tolist(), frame.order)):
        group = next((group for group in groups if _parallel(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return [_stack(group) for group in groups]


def _parallel(first: Frame, second: Frame) -> bool:
    if (first.rows, first.columns) != (second.rows, second.columns):
        return False
    pairs = ((first.across, second.across), (first.down, second.down))
    return all(
        a @ b > PARALLEL * np.linalg.norm(a) * np.linalg.norm(b)
        and abs(np.linalg.norm(a) / np.linalg.norm(b) - 1) < 0.01
        for a, b in pairs
    )


def _stack(group: list[Frame]) -> Stack:
    normal = group[0].normal
    group = sorted(group, key=lambda frame: float(frame.origin @ normal))
    places: list[list[Frame]] = []
    for frame in group:
        if places and (frame.origin - places[-1][0].origin) @ normal < SAME_PLACE:
            places[-1].append(frame)
        else:
            places.append([frame])
    return Stack(tuple(tuple(sorted(place, key=lambda frame: frame.order)) for place in places))


def grid_of(frames: Sequence[Frame], slices: Sequence[Volume], step: int, spacing: float) -> Grid:
    """The slices of one volume as a Grid. Uneven gaps between them are evened out by interpolation.

    `slices`: (rows // step, columns // step) float32 each, means over `step` by `step` pixels. Raises NoFit
    if they don't form a straight stack.
    """
    first, last = frames[0], frames[-1]
    normal = first.normal
    positions = np.array([frame.origin @ normal for frame in frames])
    direction = (last.origin - first.origin) / (positions[-1] - positions[0])
    places = first.origin + np.outer(positions - positions[0], direction)
    if (
        max(np.linalg.norm(frame.origin - place) for frame, place in zip(frames, places, strict=True))
        > STRAIGHT
    ):
        raise NoFit("its slices don't lie in one line")
    gaps = np.diff(positions)
    if gaps.max() > WIDEST_GAP:
        raise NoFit("slices are missing")
    volume = np.stack(slices)
    gap = float(np.median(gaps))
    if np.abs(gaps - gap).max() > EVEN * gap:
        volume, gap = _evened(volume, positions)
    affine = np.eye(4)
    origin = first.origin + (first.across + first.down) * (step - 1) / 2
    affine[:3] = np.column_stack([first.across * step, first.down * step, direction * gap, origin])
    return to_grid(volume, affine, spacing)


def _evened(volume: Volume, positions: Vector) -> tuple[Volume, float]:
    """`volume` with slices at equal distances, and that distance: linear between neighbours."""
    extent = positions[-1] - positions[0]
    gap = max(1.0, min(SPACING_OF_SLICE, float(np.median(np.diff(positions)))))
    count = int(extent / gap) + 1
    wanted = positions[0] + np.arange(count) * gap
    upper = np.clip(np.searchsorted(positions, wanted), 1, len(positions) - 1)
    share = (wanted - positions[upper - 1]) / (positions[upper] - positions[upper - 1])
    weight = np.clip(share, 0, 1).astype(np.float32)[:, None, None]
    return volume[upper - 1] * (1 - weight) + volume[upper] * weight, gap


def frames_of(item: int, dataset: Dataset) -> list[Frame]:
    """The frames of one object. Raises NoFit if it doesn't say where they lie."""
    shared = _first(dataset.get("SharedFunctionalGroupsSequence"))
    single = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
    count = max(1, int(dataset.get("NumberOfFrames") or 1))
    if single and len(single) != count:
        raise NoFit("its frames are not those that it lists")
    if count > 1 and not single:
        raise NoFit("it doesn't say where its frames lie")
    return [
        _frame(item, number, dataset, shared, single[number] if single else Dataset())
        for number in range(count)
    ]


def _frame(item: int, number: int, dataset: Dataset, shared: Dataset, own: Dataset) -> Frame:
    def value(group: str, name: str) -> list[float]:
        for place in (_first(own.get(group)), _first(shared.get(group)), dataset):
            if place.get(name) is not None and place.get(name) != "":
                return [float(number) for number in np.atleast_1d(place.get(name))]
        return []

    origin = np.array(value("PlanePositionSequence", "ImagePositionPatient"))
    turn = np.array(value("PlaneOrientationSequence", "ImageOrientationPatient"))
    spacing = value("PixelMeasuresSequence", "PixelSpacing")
    if origin.shape != (3,) or turn.shape != (6,) or len(spacing) != 2:
        raise NoFit("it doesn't say where its slices lie")
    across, down = turn[:3] * spacing[1], turn[3:] * spacing[0]
    if not np.isfinite([*origin, *across, *down]).all() or np.linalg.norm(np.cross(across, down)) < 1e-4:
        raise NoFit("its slices lie nowhere")
    slope = value("PixelValueTransformationSequence", "RescaleSlope") or [1.0]
    intercept = value("PixelValueTransformationSequence", "RescaleIntercept") or [0.0]
    order = (float(dataset.get("InstanceNumber") or 0), str(dataset.get("SOPInstanceUID") or ""), number)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    return Frame(item, number, origin, across, down, rows, columns, slope[0] or 1.0, intercept[0], order)


def _first(sequence: Sequence[Dataset] | None) -> Dataset:
    return sequence[0] if sequence else Dataset()
