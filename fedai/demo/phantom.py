"""Chest-like radiographs with soft nodules, as a given scanner would have stored them (numpy only).

An `Anatomy` belongs to a patient and stays the same over that patient's images; `radiograph` positions it
anew, adds the nodules asked for, and passes the picture through a `Scanner`. Body coordinates: x to the right
and y downwards, the field of view of a scanner with `field_of_view=1` being the square from -1 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedai.demo.spectra import COARSE, SIZE, Image, cloud, detector_transfer, gaussian, interpolate

BLUR_RADII = (0.6, 1.0, 1.6, 2.4)  # coarse pixels; vessels and spots come in these four widths


@dataclass(frozen=True)
class Scanner:
    """How a device renders a chest. Grey levels are fractions of the range that `bits` then spreads out.

    `field_of_view` is relative (above 1 the chest looks smaller); a positive `kernel` blurs by that standard
    deviation in pixels, a negative one sharpens by that strength; `grid_period` is in pixels, 0 for no lines.
    """

    gamma: float = 1.0
    gain: float = 0.8
    offset: float = 0.08
    noise: float = 0.012
    kernel: float = 0.6
    field_of_view: float = 1.0
    grid_period: float = 0.0
    grid_strength: float = 0.0
    bits: int = 12
    monochrome1: bool = False
    prevalence: float = 0.35


@dataclass(frozen=True)
class Disease:
    """A kind of nodule: the ranges that radius (body coordinates) and contrast are drawn from.

    A negative contrast is darker than its surroundings, as a cavity is.
    """

    radius: tuple[float, float]
    contrast: tuple[float, float]


SOFT = Disease(radius=(0.07, 0.10), contrast=(0.23, 0.38))


@dataclass(frozen=True)
class Nodule:
    """A soft round opacity: centre and radius in body coordinates, contrast in fractions of the range."""

    x: float
    y: float
    radius: float
    contrast: float


@dataclass(frozen=True)
class Anatomy:
    """One patient's chest. Lengths are in body coordinates, contrasts are fractions of the grey range."""

    width: float
    lung_x: float
    lung_width: float
    lung_top: float
    diaphragm: tuple[float, float]
    heart: tuple[float, float, float, float]
    rib_spacing: float
    rib_phase: float
    rib_slope: float
    rib_contrast: float
    tissue: float
    haze: float
    vessels: NDArray[np.float32]  # [n, 4]: x, y, radius in coarse pixels, contrast
    spots: NDArray[np.float32]  # [n, 4]: small dense things that are not nodules


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A new patient's chest."""
    lung_x, lung_width, lung_top = rng.uniform(0.37, 0.43), rng.uniform(0.25, 0.31), rng.uniform(-0.78, -0.66)
    floor = rng.uniform(0.38, 0.56)
    return Anatomy(
        width=rng.uniform(0.80, 0.95),
        lung_x=lung_x,
        lung_width=lung_width,
        lung_top=lung_top,
        diaphragm=(floor - rng.uniform(0.01, 0.07), floor),
        heart=(
            rng.uniform(0.08, 0.15),
            floor - rng.uniform(0.16, 0.24),
            rng.uniform(0.22, 0.33),
            rng.uniform(0.2, 0.28),
        ),
        rib_spacing=rng.uniform(0.125, 0.155),
        rib_phase=rng.uniform(0, 1),
        rib_slope=rng.uniform(0.5, 0.9),
        rib_contrast=rng.uniform(0.025, 0.055),
        tissue=rng.uniform(0.52, 0.66),
        haze=rng.uniform(0.006, 0.016),
        vessels=_draw_vessels(rng, lung_x, lung_top, floor),
        spots=_draw_spots(rng, lung_x, lung_width, lung_top, floor),
    )


def draw_nodules(
    rng: np.random.Generator, anatomy: Anatomy, count: int, kinds: tuple[Disease, ...] = (SOFT,)
) -> tuple[Nodule, ...]:
    """`count` nodules inside the lungs, each of one of the `kinds` (as often as it stands there).

    Soft ones are about 25 to 36 mm across in a field of 36 cm.
    """
    return tuple(_draw_nodule(rng, anatomy, kinds[rng.integers(len(kinds))]) for _ in range(count))


def radiograph(
    rng: np.random.Generator,
    scanner: Scanner,
    nodules: int | tuple[Nodule, ...],
    anatomy: Anatomy | None = None,
) -> NDArray[np.uint16]:
    """One image as `scanner` stores it: uint16 [512, 512], `scanner.bits` in use, inverted for MONOCHROME1.

    `nodules` is a number (drawn at random places) or the nodules; without `anatomy` a new chest is drawn.
    """
    chest = anatomy or draw_anatomy(rng)
    found = draw_nodules(rng, chest, nodules) if isinstance(nodules, int) else nodules
    pose = _draw_pose(rng, scanner.field_of_view)
    return _expose(rng, scanner, _absorb(rng, chest, found, pose))


# ---------------------------------------------------------------- drawing a patient


def _draw_nodule(rng: np.random.Generator, chest: Anatomy, kind: Disease) -> Nodule:
    side = rng.choice((-1.0, 1.0))
    y = rng.uniform(chest.lung_top + 0.22, min(chest.diaphragm) - 0.10)
    x = side * (chest.lung_x + chest.lung_width * rng.uniform(-0.45, 0.6))
    return Nodule(x, y, rng.uniform(*kind.radius), rng.uniform(*kind.contrast))


def _draw_vessels(rng: np.random.Generator, lung_x: float, top: float, floor: float) -> NDArray[np.float32]:
    """Branches that leave both hila, as dense rows of points."""
    return np.concatenate(
        [_draw_branch(rng, side, lung_x, top, floor) for side in (-1, 1) for _ in range(18)]
    )


def _draw_branch(
    rng: np.random.Generator, side: int, lung_x: float, top: float, floor: float
) -> NDArray[np.float32]:
    t = np.linspace(0, 1, 70)
    end_x = lung_x + rng.uniform(-0.14, 0.22)
    end_y = rng.uniform(top + 0.12, floor - 0.02)
    start_x, start_y = 0.16 + rng.uniform(0, 0.06), -0.10 + rng.uniform(-0.10, 0.14)
    bend = rng.uniform(-0.12, 0.12) * np.sin(np.pi * t) + rng.uniform(-0.02, 0.02) * np.sin(3 * np.pi * t)
    x = side * (start_x + (end_x - start_x) * t)
    y = start_y + (end_y - start_y) * t + bend
    radius = BLUR_RADII[-1] * rng.uniform(0.5, 1.0) * (1 - t) ** 1.3 + 0.5
    return np.stack([x, y, radius, rng.uniform(0.05, 0.09) * (1.1 - t)], axis=1).astype(np.float32)


def _draw_spots(
    rng: np.random.Generator, lung_x: float, lung_width: float, top: float, floor: float
) -> NDArray[np.float32]:
    """Vessels seen end-on and calcified granulomas: brighter and much smaller than a nodule."""
    n = int(rng.integers(3, 10))
    x = rng.choice((-1.0, 1.0), n) * (lung_x + lung_width * rng.uniform(-0.6, 0.7, n))
    y = rng.uniform(top + 0.15, floor - 0.05, n)
    return np.stack([x, y, rng.uniform(0.6, 2.2, n), rng.uniform(0.06, 0.2, n)], axis=1).astype(np.float32)


@dataclass(frozen=True)
class _Pose:
    """Where the body lies in the picture: scale, rotation (radians) and shift (body coordinates)."""

    scale: float
    angle: float
    x: float
    y: float

    def to_body(self, columns: Image, rows: Image) -> tuple[Image, Image]:
        c, s = np.float32(np.cos(self.angle) * self.scale), np.float32(np.sin(self.angle) * self.scale)
        return c * columns + s * rows - np.float32(self.x), c * rows - s * columns - np.float32(self.y)

    def to_pixels(self, x: Image, y: Image) -> tuple[Image, Image]:
        c, s = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        u, v = x + self.x, y + self.y
        return (c * u - s * v + 1) * (SIZE / 2) - 0.5, (s * u + c * v + 1) * (SIZE / 2) - 0.5


def _draw_pose(rng: np.random.Generator, field_of_view: float) -> _Pose:
    return _Pose(
        scale=field_of_view * rng.uniform(0.95, 1.05),
        angle=rng.normal(0, 0.03),
        x=rng.normal(0, 0.03),
        y=rng.normal(0.02, 0.04),
    )


# ---------------------------------------------------------------- what the rays pass through


@cache
def _pixel_grid() -> tuple[Image, Image]:
    axis = ((np.arange(SIZE, dtype=np.float32) + 0.5) / (SIZE / 2) - 1).astype(np.float32)
    columns, rows = np.meshgrid(axis, axis)
    return columns, rows


def _step(distance: Image, softness: float) -> Image:
    """0 where `distance` is below 0, 1 above, with a smooth edge of the given width."""
    t = np.clip(distance / np.float32(softness) + np.float32(0.5), 0, 1)
    edge: Image = t * t * (3 - 2 * t)
    return edge


def _absorb(rng: np.random.Generator, chest: Anatomy, nodules: tuple[Nodule, ...], pose: _Pose) -> Image:
    """Attenuation of every ray, float32 [512, 512], 0 (air) to about 1 (bone over mediastinum)."""
    x, y = pose.to_body(*_pixel_grid())
    across = np.abs(x)
    lungs = _lungs(chest, x, across, y)
    body = _body(chest, across, y)
    picture = body * np.float32(chest.tissue) - np.float32(0.42) * lungs
    picture += body * _mediastinum(chest, across, x, y)
    picture += _ribs(chest, across, y) * body
    picture += _clavicles(across, y)
    picture += _fine_structure(rng, chest, pose) * (np.float32(0.25) + lungs)
    for nodule in nodules:
        _add_nodule(picture, nodule, pose)
    return picture


def _body(chest: Anatomy, across: Image, y: Image) -> Image:
    half = np.float32(chest.width) + np.float32(0.1) * (y * y)
    flank = np.sqrt(np.clip(1 - (across / half) ** 2, 0, 1))
    shoulder = _step(y + np.float32(0.98) - np.float32(0.34) * across, 0.10)
    neck = _step(np.float32(0.22) - across, 0.12)
    outline = np.maximum(shoulder, neck)
    thickness: Image = np.float32(0.35) * _step(half - across, 0.05) + np.float32(0.65) * flank
    return thickness * outline


def _lungs(chest: Anatomy, x: Image, across: Image, y: Image) -> Image:
    """Air along the ray, 0 to 1: two tapering lungs cut off by the domes of the diaphragm."""
    right, left = chest.diaphragm
    floor = np.where(x < 0, np.float32(right), np.float32(left))
    height = floor + np.float32(0.15) - np.float32(chest.lung_top)
    t = np.clip((y - np.float32(chest.lung_top)) / height, 0, 1)
    half = np.float32(chest.lung_width) * (np.float32(0.70) + np.float32(0.38) * t)
    middle = np.float32(chest.lung_x) - np.float32(0.07) * (1 - t)
    radius = ((across - middle) / half) ** 2 + np.clip(1 - t * np.float32(2.6), 0, 1) ** 2
    dome = floor + np.float32(0.9) * (across - middle) ** 2
    air: Image = np.sqrt(np.clip(1 - radius, 0, 1)) * _step(dome - y, 0.035)
    return air


def _mediastinum(chest: Anatomy, across: Image, x: Image, y: Image) -> Image:
    column = np.float32(0.20) * _step(np.float32(0.14) + np.float32(0.04) * y - across, 0.09)
    spine = (
        np.float32(0.07) * _step(np.float32(0.085) - across, 0.03) * (1 + np.float32(0.35) * np.cos(y * 42))
    )
    arch = np.float32(0.14) * np.exp(-(((x - 0.15) / 0.075) ** 2) - ((y + 0.30) / 0.09) ** 2)
    trachea = np.float32(0.10) * np.exp(-((x / 0.035) ** 2)) * _step(np.float32(-0.28) - y, 0.1)
    shadow: Image = np.maximum(column, _heart(chest, x, y)) + spine + arch - trachea
    return shadow


def _heart(chest: Anatomy, x: Image, y: Image) -> Image:
    cx, cy, rx, ry = (np.float32(value) for value in chest.heart)
    tilted = y + np.float32(0.25) * (x - cx)
    inside = 1 - ((x - cx) / rx) ** 2 - ((tilted - cy) / ry) ** 2
    shadow: Image = np.float32(0.24) * np.sqrt(np.clip(inside, 0, 1))
    return shadow


def _ribs(chest: Anatomy, across: Image, y: Image) -> Image:
    """Posterior ribs fall away from the spine, the fainter anterior ones rise from the breastbone."""
    edge = np.float32(chest.lung_x + chest.lung_width + 0.03)
    cage = _step(edge - across, 0.04) * _step(across - np.float32(0.06), 0.05)
    cage *= _step(y - np.float32(chest.lung_top - 0.02), 0.05) * _step(np.float32(0.8) - y, 0.3)
    back = y - np.float32(chest.rib_slope) * (across - np.float32(0.25)) * np.abs(across - np.float32(0.05))
    front = y + np.float32(0.55) * across
    spacing, phase = np.float32(chest.rib_spacing), np.float32(chest.rib_phase)
    faint = np.float32(0.45) * _bands(front / (spacing * np.float32(1.25)) - phase)
    ribs: Image = np.float32(chest.rib_contrast) * cage * (_bands(back / spacing + phase) + faint)
    return ribs


def _bands(t: NDArray[np.floating]) -> Image:
    """Bright edges around a flatter middle, once per unit of `t`."""
    wave = np.cos(np.float32(2 * np.pi) * t)
    bands: Image = _step(wave - np.float32(0.15), 0.35) * (np.float32(1.3) - np.float32(0.5) * wave)
    return bands


def _clavicles(across: Image, y: Image) -> Image:
    line = np.abs(y + np.float32(0.60) + np.float32(0.16) * across - np.float32(0.22) * across * across)
    inside = _step(across - 0.07, 0.05) * _step(0.72 - across, 0.1)
    return np.float32(0.10) * _step(np.float32(0.026) - line, 0.02) * inside


def _add_nodule(picture: Image, nodule: Nodule, pose: _Pose) -> None:
    """Adds a blurred ball: its thickness along the ray, softened at the rim."""
    column, row = pose.to_pixels(np.float32(nodule.x), np.float32(nodule.y))  # type: ignore[arg-type]
    radius = nodule.radius / pose.scale * SIZE / 2
    reach = int(radius * 1.6) + 1
    top, left = max(int(row) - reach, 0), max(int(column) - reach, 0)
    patch = picture[top : int(row) + reach, left : int(column) + reach]
    r, c = np.ogrid[top : top + patch.shape[0], left : left + patch.shape[1]]
    distance = ((r - row) ** 2 + (c - column) ** 2) / radius**2
    patch += (nodule.contrast * np.exp(-(distance**1.8))).astype(np.float32)


# ---------------------------------------------------------------- by Fourier transform: detail and detector


def _fine_structure(rng: np.random.Generator, chest: Anatomy, pose: _Pose) -> Image:
    """Vessels, dense spots and parenchymal texture, float32 [512, 512]."""
    white = rng.standard_normal((COARSE, COARSE), dtype=np.float32)
    spectrum = np.fft.rfft2(white) * (cloud() * np.float32(chest.haze))
    for sigma in BLUR_RADII:
        impulses = _scatter(chest.vessels, sigma, np.sqrt(2 * np.pi) * sigma, pose)
        impulses += _scatter(chest.spots, sigma, 2 * np.pi * sigma**2, pose)
        spectrum += np.fft.rfft2(impulses) * gaussian(sigma, COARSE)
    return interpolate(spectrum)


def _scatter(points: NDArray[np.float32], sigma: float, weight: float, pose: _Pose) -> Image:
    """Impulses of weight x contrast on the coarse grid, at the points whose width is nearest to `sigma`."""
    canvas = np.zeros((COARSE, COARSE), np.float32)
    nearest = np.abs(points[:, 2:3] - np.array(BLUR_RADII)).argmin(axis=1)
    chosen = points[nearest == BLUR_RADII.index(sigma)]
    columns, rows = (np.round(axis / 2).astype(int) for axis in pose.to_pixels(chosen[:, 0], chosen[:, 1]))
    inside = (columns >= 0) & (rows >= 0) & (columns < COARSE) & (rows < COARSE)
    np.maximum.at(canvas, (rows[inside], columns[inside]), chosen[inside, 3] * np.float32(weight))
    return canvas


def _expose(rng: np.random.Generator, scanner: Scanner, absorbed: Image) -> NDArray[np.uint16]:
    """Detector and console: quantum noise, kernel, tone curve, grid lines, quantization."""
    grain = rng.standard_normal((SIZE, SIZE), dtype=np.float32) * np.float32(scanner.noise)
    noisy = absorbed + grain * np.sqrt(np.float32(0.3) + np.clip(absorbed, 0, 1))
    sharp = np.fft.irfft2(np.fft.rfft2(noisy) * detector_transfer(scanner.kernel), s=(SIZE, SIZE)).astype(
        np.float32
    )
    exposure = np.float32(rng.uniform(0.92, 1.08))
    value = (
        np.float32(scanner.offset)
        + np.float32(scanner.gain) * exposure * np.clip(sharp, 0, None) ** scanner.gamma
    )
    value += _grid_lines(scanner, float(rng.uniform(0, 1)))
    shown = np.clip(1 - value if scanner.monochrome1 else value, 0, 1)
    stored: NDArray[np.uint16] = np.round(shown * (2**scanner.bits - 1)).astype(np.uint16)
    return stored


def _grid_lines(scanner: Scanner, phase: float) -> Image:
    if not scanner.grid_period:
        return np.zeros((1, SIZE), np.float32)
    turns = np.arange(SIZE) / scanner.grid_period + phase
    return (scanner.grid_strength * np.sin(2 * np.pi * turns)).astype(np.float32)[None, :]
