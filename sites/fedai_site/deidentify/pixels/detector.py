"""Finds text in grey pictures with the network whose weights lie beside this module (see CARD.md).

torch is imported when a picture is first looked at. One thread, float32, CPU: the same picture always gives
the same boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedai_site.deidentify.pixels.boxes import EVERY, SURE, Box, boxes_of, merged

WEIGHTS = Path(__file__).with_name("text.safetensors")
STEP = 32
"""The network takes pictures whose sides are multiples of that."""
TILE, OVERLAP = 1024, 128
"""Larger pictures are looked at in tiles, in pixels, so that memory stays bounded."""
CELL = 4
WHITE = np.float32(255)
BLOCK = 32
"""Pixels; blocks of that side where there is nothing to see aren't looked at."""
FLAT = 2.0
"""Grey levels by which a block may vary and still have nothing to see."""
WHOLE = 0.8
"""Share of a picture from which all of it is looked at rather than parts of it."""
HINT = 0.05
"""Chance that a cell must have for a closer look, in an enlarged picture, at what is around it."""
SMALLEST, LARGE = 200, 1000
"""Longest side, in pixels, up to which a picture is too small for large print, and from which a quick look is
at half its size."""
SURE_REDUCED, LEAST_REDUCED, MOST_REDUCED = 0.95, 7, 0.25
"""In a reduced picture only print counts that is too large for the network otherwise: so sure, so many cells
wide, and no wider than that share of the picture."""
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Detector:
    """A network with its weights. `name` says which, by their hash."""

    def __init__(self, path: Path = WEIGHTS) -> None:
        from safetensors.torch import load

        from fedai_site.deidentify.pixels.network import TextNetwork, folded

        data = path.read_bytes()
        self.name = f"fedai-text {hashlib.sha256(data).hexdigest()[:12]}"
        network = TextNetwork()
        weights = {name: value.float() for name, value in load(data).items()}
        missing = network.load_state_dict(weights, strict=False).missing_keys
        if any(not name.endswith("num_batches_tracked") for name in missing):
            raise ValueError("the weights of the text detector are not complete")
        self._network = folded(network)

    def boxes(
        self,
        picture: Floats,
        sizes: tuple[float, ...] = (1.0,),
        grown: float = 1.0,
        sure: float = SURE,
        blank: Mask | None = None,
    ) -> list[Box]:
        """Where text is in a picture (H, W) of display grey levels 0..255.

        It is looked at in each of the sizes, and as a negative too if they are several; `grown` multiplies
        margins; a cell must reach `sure`, and none counts that lies within what is `blank` (H, W) already.
        """
        shape = picture.shape[0], picture.shape[1]
        found: list[Box] = []
        where = None
        for size in sizes:
            chance = self.chance(picture, size, where if size > 1 else None, negative=len(sizes) > 1)
            if blank is not None:
                chance = np.where(_whole_cells(blank, round(CELL / size)), np.float32(0), chance)
            if where is None:
                where = hints(chance, size)
            also = size < sizes[0]
            found += boxes_of(
                chance,
                CELL / size,
                shape,
                grown,
                max(sure, SURE_REDUCED) if also else sure,
                (LEAST_REDUCED, MOST_REDUCED * min(chance.shape)) if also else EVERY,
            )
        return merged(found)

    def chance(
        self, picture: Floats, size: float = 1.0, where: Mask | None = None, *, negative: bool = False
    ) -> Floats:
        """Chance of text for each cell, 4 x 4 pixels of the picture in that size (2 to some power):
        (H * size / 4, W * size / 4) rounded up.

        `where`: blocks of BLOCK x BLOCK pixels of the picture to look at; default: those that aren't flat. It
        is 0 in the others. `negative`: look at the picture's negative too; the higher chance counts.
        """
        blocks = uneven(picture) if where is None else where
        cell = round(CELL / size)
        result = np.zeros([-(-side // cell) for side in picture.shape], np.float32)
        for row0, col0, row1, col1 in parts(blocks, picture.shape[0], picture.shape[1]):
            scaled = _scaled(picture[row0:row1, col0:col1], size)
            part = self._one(scaled)
            if negative:
                part = np.maximum(part, self._one(WHITE - scaled))
            top, left = row0 // cell, col0 // cell
            at = result[top : top + part.shape[0], left : left + part.shape[1]]
            np.maximum(at, part[: at.shape[0], : at.shape[1]], out=at)
        return result

    def _one(self, picture: Floats) -> Floats:
        import torch

        rows, columns = picture.shape
        padded = np.pad(picture, ((0, -rows % STEP), (0, -columns % STEP)), mode="edge")
        with one_thread(), torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(padded, np.float32))[None, None]
            chance: Floats = torch.sigmoid(self._network(given))[0, 0].numpy()
        return chance[: -(-rows // CELL), : -(-columns // CELL)]


def _whole_cells(mask: Mask, cell: int) -> Mask:
    """Which cells of so many pixels the mask covers completely."""
    padded = np.pad(mask, [(0, -side % cell) for side in mask.shape], constant_values=True)
    blocks = padded.reshape(padded.shape[0] // cell, cell, padded.shape[1] // cell, cell)
    return np.asarray(blocks.all((1, 3)))


def uneven(picture: Floats) -> Mask:
    """Which blocks of a picture show anything."""
    padded = np.pad(picture, [(0, -side % BLOCK) for side in picture.shape], mode="edge")
    blocks = padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    return np.asarray(blocks.max((1, 3)) - blocks.min((1, 3)) > FLAT)


def hints(chance: Floats, size: float) -> Mask:
    """Which blocks of a picture have a cell that may be text, given the chances found in one size."""
    cells = max(1, round(BLOCK * size) // CELL)
    padded = np.pad(chance, [(0, -side % cells) for side in chance.shape])
    blocks = padded.reshape(padded.shape[0] // cells, cells, padded.shape[1] // cells, cells)
    return np.asarray(blocks.max((1, 3)) >= HINT)


def parts(blocks: Mask, rows: int, columns: int) -> Iterator[Box]:
    """Parts of a picture, in pixels, that hold the blocks and two around each; large ones as tiles."""
    labels, _ = ndimage.label(ndimage.binary_dilation(blocks, np.ones((5, 5), bool)), np.ones((3, 3), bool))
    found = [
        (
            down.start * BLOCK,
            across.start * BLOCK,
            min(rows, down.stop * BLOCK),
            min(columns, across.stop * BLOCK),
        )
        for down, across in ndimage.find_objects(labels)
    ]
    if sum((box[2] - box[0]) * (box[3] - box[1]) for box in found) > WHOLE * rows * columns:
        found = [(0, 0, rows, columns)]
    for row0, col0, row1, col1 in found:
        for row in _starts(row1 - row0):
            for column in _starts(col1 - col0):
                top, left = row0 + row, col0 + column
                yield top, left, min(row1, top + TILE), min(col1, left + TILE)


def all_sizes(rows: int, columns: int) -> tuple[float, ...]:
    """The sizes of a full look: as it is; enlarged for small print, reduced for large print."""
    longest = max(rows, columns)
    if longest <= SMALLEST:
        return 1.0, 2.0
    return (1.0, 2.0, 0.5) if longest < LARGE else (1.0, 2.0, 0.5, 0.25)


def one_size(rows: int, columns: int) -> tuple[float, ...]:
    """The size of a quicker look: as it is, large pictures reduced."""
    return (0.5,) if max(rows, columns) >= LARGE else (1.0,)


def _scaled(picture: Floats, size: float) -> Floats:
    import torch

    if size == 1.0:
        return picture
    if size < 1:
        step = round(1 / size)
        whole = np.pad(picture, ((0, -picture.shape[0] % step), (0, -picture.shape[1] % step)), mode="edge")
        cells = whole.reshape(whole.shape[0] // step, step, whole.shape[1] // step, step)
        return np.asarray(cells.mean((1, 3)), np.float32)
    with one_thread():
        given = torch.from_numpy(np.ascontiguousarray(picture))[None, None]
        larger = torch.nn.functional.interpolate(given, scale_factor=size, mode="bilinear")
    return np.asarray(larger[0, 0].numpy())


def _starts(length: int) -> Iterator[int]:
    """Where tiles begin: multiples of the network's step, so that tiling changes as little as can be."""
    yield from range(0, max(1, length - OVERLAP), TILE - OVERLAP)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch uses one thread: sums come in one order, and processes beside this one aren't
    starved.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def detector() -> Detector:
    """The detector of this process, loaded once."""
    return Detector()
