"""Generated pictures without text: noise, gradients, tissue, ultrasound sectors; and clutter that looks like
text.

All pictures are float32 (H, W), display grey levels 0..255.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Floats = NDArray[np.float32]
Generator = np.random.Generator


def stretched(picture: NDArray[np.floating], low: float, high: float) -> Floats:
    """The picture with its range mapped to low..high."""
    least, most = float(picture.min()), float(picture.max())
    scaled = (picture - least) / max(most - least, 1e-6)
    return (low + scaled * (high - low)).astype(np.float32)


def smooth_noise(rng: Generator, size: int, cell: int) -> Floats:
    """Noise with structures of about `cell` pixels."""
    coarse = rng.normal(size=(size // cell + 4, size // cell + 4)).astype(np.float32)
    big = ndimage.zoom(coarse, cell, order=1)
    return np.asarray(big[:size, :size], np.float32)


def flat(rng: Generator, size: int) -> Floats:
    """One grey level, often black or white, with or without a little noise."""
    level = rng.choice([0.0, 255.0, rng.uniform(0, 255)], p=[0.5, 0.15, 0.35])
    noise = rng.choice([0.0, rng.uniform(0, 4), rng.uniform(2, 25)])
    return (level + rng.normal(0, 1, (size, size)) * noise).astype(np.float32)


def gradient(rng: Generator, size: int) -> Floats:
    """A ramp in any direction with noise."""
    ys, xs = np.mgrid[0:size, 0:size] / size
    angle = rng.uniform(0, 2 * np.pi)
    ramp = stretched(np.cos(angle) * xs + np.sin(angle) * ys, *sorted(rng.uniform(0, 255, 2)))
    return (ramp + rng.normal(0, rng.uniform(0, 6), ramp.shape)).astype(np.float32)


def tissue(rng: Generator, size: int) -> Floats:
    """Noise of several scales: soft tissue, marrow, lung."""
    weights = rng.uniform(0, 1, 4)
    mixed = sum(
        (
            weight * smooth_noise(rng, size, cell)
            for weight, cell in zip(weights, (2, 6, 17, 47), strict=True)
        ),
        np.zeros((size, size), np.float32),
    )
    return stretched(mixed, *sorted(rng.uniform(0, 255, 2)))


def trabeculae(rng: Generator, size: int) -> Floats:
    """Bone: thin bright branches between dark marrow."""
    noise = rng.normal(size=(size, size))
    stretch = rng.uniform(0.6, 2.5)
    band = ndimage.gaussian_filter(noise, (1.2 * stretch, 1.2)) - ndimage.gaussian_filter(noise, (4, 4))
    ridge = np.exp(-np.abs(stretched(band, -3, 3)) * rng.uniform(1, 3))
    return stretched(ridge, *sorted(rng.uniform(0, 255, 2)))


def body(rng: Generator, size: int) -> Floats:
    """A body on black: ellipses of organs and bones with texture."""
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    picture = np.zeros((size, size), np.float32)
    for number in range(int(rng.integers(3, 14))):
        spread = 0.45 if number == 0 else rng.uniform(0.02, 0.2)
        cy, cx = rng.uniform(0.2, 0.8, 2) * size
        ry, rx = rng.uniform(0.5, 1.5, 2) * spread * size
        inside = ((ys - cy) / ry) ** 2 + ((xs - cx) / rx) ** 2
        level = rng.uniform(0, 255)
        edge = rng.random() < 0.3
        hit = (inside < 1) & (inside > 0.75) if edge else inside < 1
        picture[hit] = level
    picture = ndimage.gaussian_filter(picture, rng.uniform(0.3, 2))
    texture = smooth_noise(rng, size, int(rng.integers(2, 9))) + rng.normal(0, 1, (size, size))
    return np.clip(picture + texture * rng.uniform(0, 9) * (picture > 4), 0, 255).astype(np.float32)


def sector(rng: Generator, size: int) -> Floats:
    """Ultrasound: speckle in a sector on black."""
    speckle = np.hypot(*rng.normal(size=(2, size, size)))
    speckle = ndimage.gaussian_filter(speckle, (rng.uniform(0.6, 1.5), rng.uniform(0.8, 3.5)))
    echo = stretched(speckle, 0, 1) * stretched(smooth_noise(rng, size, 31), 0.1, 1)
    ys, xs = np.mgrid[0:size, 0:size] / size
    x0, y0 = rng.uniform(-0.2, 1.2), rng.uniform(-0.6, 0.2)
    radius, angle = np.hypot(xs - x0, ys - y0), np.abs(np.arctan2(xs - x0, ys - y0))
    inside = (radius > 0.1) & (radius < rng.uniform(0.7, 1.8)) & (angle < rng.uniform(0.3, 1.0))
    return (stretched(echo, 0, rng.uniform(90, 255)) * inside).astype(np.float32)


def chest(rng: Generator, size: int) -> Floats:
    """Ribs: curved bands over a smooth field."""
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    curve = ys + ((xs - rng.uniform(0, size)) ** 2) * rng.uniform(-1.5, 1.5) / size
    ribs = np.clip(np.sin(curve * 2 * np.pi / rng.uniform(25, 90)) * rng.uniform(1, 4), -1, 1)
    field = stretched(smooth_noise(rng, size, 61), *sorted(rng.uniform(20, 235, 2)))
    return (field + ribs * rng.uniform(4, 30) + rng.normal(0, rng.uniform(0, 6), ribs.shape)).astype(
        np.float32
    )


def panels(rng: Generator, size: int) -> Floats:
    """Areas of flat grey side by side: collimated film, screens, test pictures, colour bars."""
    picture = np.full((size, size), rng.choice([0, 255, rng.uniform(0, 255)]), np.float32)
    for _ in range(int(rng.integers(1, 9))):
        row, column = rng.integers(-20, size, 2)
        height, width = rng.integers(6, size, 2)
        picture[max(0, row) : max(0, row + height), max(0, column) : max(0, column + width)] = rng.uniform(
            0, 255
        )
    return picture + rng.normal(0, rng.choice([0, 0, 3]), picture.shape).astype(np.float32)


def stripes(rng: Generator, size: int) -> Floats:
    """Bars across the picture, of one width or of any: colour bars, grey steps, line pairs, bed and table."""
    edges = np.cumsum(rng.uniform(2, 40, 200) if rng.random() < 0.4 else np.full(200, rng.uniform(2, 30)))
    levels = rng.uniform(0, 255, 201) if rng.random() < 0.7 else np.tile(rng.uniform(0, 255, 2), 101)[:201]
    across = levels[np.searchsorted(edges, np.arange(size))].astype(np.float32)
    picture = np.tile(across, (size, 1))
    return np.ascontiguousarray(picture.T if rng.random() < 0.6 else picture)


SCENES: tuple[Callable[[Generator, int], Floats], ...] = (
    flat, gradient, tissue, trabeculae, body, sector, chest, panels, stripes,
)  # fmt: skip


def scene(rng: Generator, size: int) -> Floats:
    """One generated background."""
    return SCENES[int(rng.integers(len(SCENES)))](rng, size)


# Clutter: what is not text, drawn over a picture with PIL in one grey level.


def _ruler(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    x, step, across = int(rng.integers(0, size)), int(rng.integers(3, 30)), rng.random() < 0.5
    for number, at in enumerate(range(0, size, step)):
        length = int(rng.integers(3, 6)) if number % 5 else 10
        pen.line([at, x, at, x + length] if across else [x, at, x + length, at], fill=grey, width=1)
    if rng.random() < 0.5:
        pen.line([0, x, size, x] if across else [x, 0, x, size], fill=grey)


def _grid(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    step = int(rng.integers(8, 60))
    for at in range(int(rng.integers(0, step)), size, step):
        pen.line([at, 0, at, size], fill=grey)
        pen.line([0, at, size, at], fill=grey)


def _curve(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    """An electrocardiogram: flat with beats."""
    base, period, height = rng.uniform(0, size), rng.uniform(20, 120), rng.uniform(8, 60)
    xs = np.arange(size)
    phase = (xs % period) / period
    beat = np.exp(-(((phase - 0.3) / 0.02) ** 2)) - 0.3 * np.exp(-(((phase - 0.36) / 0.03) ** 2))
    beat += 0.2 * np.exp(-(((phase - 0.6) / 0.06) ** 2))
    points = list(zip(xs.tolist(), (base - height * beat + rng.normal(0, 0.7, size)).tolist(), strict=True))
    pen.line(points, fill=grey, width=int(rng.integers(1, 3)))


def _wire(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    """A lead or catheter with, sometimes, an electrode at its end."""
    steps = np.cumsum(np.cumsum(rng.normal(0, 0.04, (200, 2)), 0) + rng.normal(0, 1.4, 2), 0)
    points = [tuple(point) for point in (steps + rng.uniform(0, size, 2)).tolist()]
    pen.line(points, fill=grey, width=int(rng.integers(1, 6)), joint="curve")
    if rng.random() < 0.5:
        (x, y), r = points[-1], rng.uniform(3, 16)
        pen.ellipse([x - r, y - r, x + r, y + r], fill=grey, outline=255 - grey)


def _screw(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    x, y = rng.uniform(0, size, 2)
    angle, step, width = rng.uniform(0, np.pi), rng.uniform(3, 8), rng.uniform(4, 14)
    dy, dx = np.sin(angle), np.cos(angle)
    for number in range(int(rng.integers(4, 18))):
        cx, cy = x + dx * step * number, y + dy * step * number
        pen.line([cx - dy * width, cy + dx * width, cx + dy * width, cy - dx * width], fill=grey, width=2)
    pen.line([x, y, cx, cy], fill=grey, width=int(width))


def _teeth(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    x, y, wide = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(10, 30)
    for number in range(int(rng.integers(3, 9))):
        left, top = x + number * wide * 1.15, y + rng.normal(0, 3)
        pen.rounded_rectangle(
            [left, top, left + wide, top + wide * 1.8], wide / 3, fill=grey, outline=max(0, grey - 60)
        )


def _cross(rng: Generator, pen: ImageDraw.ImageDraw, x: float, y: float, r: float, grey: int) -> None:
    """One mark of a measurement: upright, slanting, starred, or open in the middle; thick or thin."""
    width, inner = int(rng.integers(1, 4)), r * rng.choice([0.0, 0.0, 0.4])
    turned = rng.choice([0.0, np.pi / 4])
    arms = 8 if rng.random() < 0.15 else 4
    for arm in range(arms):
        dy, dx = np.sin(turned + arm * 2 * np.pi / arms), np.cos(turned + arm * 2 * np.pi / arms)
        pen.line([x + dx * inner, y + dy * inner, x + dx * r, y + dy * r], fill=grey, width=width)
    if rng.random() < 0.15:
        pen.ellipse([x - r, y - r, x + r, y + r], outline=grey)


def _calipers(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    """Marks of measurements, joined by dots or alone; arrowheads."""
    (x0, y0), (x1, y1), r = rng.uniform(0, size, 2), rng.uniform(0, size, 2), rng.uniform(2, 13)
    for x, y in ((x0, y0), (x1, y1)):
        _cross(rng, pen, x, y, r, grey)
    dot = rng.uniform(0, 1.6)
    for t in np.arange(0, 1, rng.uniform(0.02, 0.1)) if rng.random() < 0.7 else ():
        x, y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
        pen.ellipse([x - dot, y - dot, x + dot, y + dot], fill=grey)
    if rng.random() < 0.4:
        pen.polygon([x0, y0, x0 + r, y0 + 2 * r, x0 - r, y0 + 2 * r], fill=grey)


def _frame(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    box = [*rng.uniform(-20, size * 0.6, 2), *rng.uniform(size * 0.6, size + 20, 2)]
    pen.rectangle(box, outline=grey, width=int(rng.integers(1, 4)))


def _wedge(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    """A grey scale with its border."""
    x, y, wide, high = (
        int(rng.integers(0, size)),
        int(rng.integers(0, size // 2)),
        5 + grey % 14,
        int(rng.integers(40, 130)),
    )
    for row in range(high):
        pen.line([x, y + row, x + wide, y + row], fill=int(255 * row / high))
    pen.rectangle([x, y, x + wide, y + high], outline=grey)


def _specks(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    """Calcifications, dust, colour Doppler: blobs strewn about."""
    centre, spread = rng.uniform(0, size, 2), rng.uniform(10, 90)
    for x, y in centre + rng.normal(0, spread, (int(rng.integers(5, 60)), 2)):
        r = rng.exponential(1.6)
        pen.ellipse([x - r, y - r * rng.uniform(0.5, 2), x + r, y + r], fill=grey)


def _blocks(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    """Checkers and bars of test pictures."""
    x, y, cell = int(rng.integers(0, size)), int(rng.integers(0, size)), int(rng.integers(2, 20))
    for row in range(int(rng.integers(1, 7))):
        for column in range(int(rng.integers(2, 9))):
            if (row + column) % 2:
                left, top = x + column * cell, y + row * cell
                pen.rectangle([left, top, left + cell, top + cell], fill=grey)


def _ring(rng: Generator, pen: ImageDraw.ImageDraw, size: int, grey: int) -> None:
    (x, y), r = rng.uniform(0, size, 2), rng.uniform(4, 50)
    start = rng.uniform(0, 360)
    pen.arc(
        [x - r, y - r, x + r, y + r * rng.uniform(0.6, 1.4)],
        start,
        start + rng.uniform(60, 360),
        fill=grey,
        width=int(rng.integers(1, 5)),
    )


CLUTTER = (
    _calipers, _ruler, _grid, _curve, _wire, _screw, _teeth, _calipers, _frame, _wedge, _specks,
    _blocks, _ring,
)  # fmt: skip


def clutter(rng: Generator, picture: Floats, pieces: int) -> Floats:
    """The picture with so many pieces of clutter over it, each in a grey level and opacity of its own."""
    size = picture.shape[0]
    for _ in range(pieces):
        drawn = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        CLUTTER[int(rng.integers(len(CLUTTER)))](rng, ImageDraw.Draw(drawn), size, int(rng.integers(0, 256)))
        changed = np.asarray(drawn, np.float32) - np.floor(np.clip(picture, 0, 255))
        picture = (picture + changed * np.float32(rng.uniform(0.15, 1))).astype(np.float32)
    return picture
