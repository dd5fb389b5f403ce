"""The pixels of a series: decoded when they are first needed, understood, and replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydicom.dataset import Dataset

from fedai_site.deidentify.faces import tissue
from fedai_site.deidentify.faces.findings import NoFit
from fedai_site.deidentify.faces.grid import Grid, Mask, Volume
from fedai_site.deidentify.faces.stacks import Frame, Stack, grid_of
from fedai_site.deidentify.pixels.frames import Layout, Stored, layout, read, write

GREY = ("MONOCHROME1", "MONOCHROME2")
Changed = dict[tuple[int, int], Stored]
"""New stored values of frames, by object and frame number."""


@dataclass
class Pixels:
    """The objects of one series. Stored values are kept by (object, frame) once they have been asked for."""

    items: Sequence[Dataset]
    modality: str
    _stored: Changed = field(default_factory=dict)
    _layouts: dict[int, Layout] = field(default_factory=dict)

    def stored(self, frame: Frame) -> Stored:
        """Stored values of a frame, (rows, columns). Raises Quarantine if they can't be decoded, NoFit for
        colours.
        """
        if frame.item not in self._layouts:
            self._decode(frame.item)
        return self._stored[frame.item, frame.number]

    def _decode(self, item: int) -> None:
        found = layout(self.items[item])
        if found is None or found.samples != 1 or found.colour not in GREY:
            raise NoFit("its pixels are colours")
        for number, (stored, _) in enumerate(read(self.items[item], found)):
            self._stored[item, number] = stored
        self._layouts[item] = found

    def values(self, frame: Frame, step: int, changed: Changed | None = None) -> Volume:
        """What a frame's values mean, as means over `step` by `step` pixels, (rows // step, columns //
        step).
        """
        stored = (changed or {}).get((frame.item, frame.number), self.stored(frame))
        rows, columns = stored.shape[0] // step, stored.shape[1] // step
        blocks = stored[: rows * step, : columns * step].reshape(rows, step, columns, step)
        means = blocks.mean(axis=(1, 3), dtype=np.float32) * frame.slope + frame.intercept
        return np.asarray(-means if self._is_inverted(frame) else means, np.float32)

    def _is_inverted(self, frame: Frame) -> bool:
        inverted = self.items[frame.item].get("PhotometricInterpretation") == "MONOCHROME1"
        return inverted and self.modality != "CT"

    def grid(self, frames: Sequence[Frame], spacing: float, changed: Changed | None = None) -> Grid:
        """The frames of one volume as a Grid. Raises NoFit if they don't form one."""
        size = min(np.linalg.norm(frames[0].across), np.linalg.norm(frames[0].down))
        step = max(1, min(int(spacing / size + 0.01), frames[0].rows // 4, frames[0].columns // 4))
        return grid_of(frames, [self.values(frame, step, changed) for frame in frames], step, spacing)

    def darkest(self, stack: Stack) -> float:
        """What takes the face's place: air for CT, else the darkest value of the stack."""
        if self.modality == "CT":
            return tissue.AIR
        ends = [
            (self.stored(frame).max() if self._is_inverted(frame) else self.stored(frame).min()) * frame.slope
            + frame.intercept
            for frame in stack.frames
        ]
        return float(max(ends) if self._is_inverted(stack.first) else min(ends))

    def replaced(self, frame: Frame, mask: Mask, value: float) -> Stored | None:
        """The frame's stored values with `value` wherever `mask` says so; None if that changes nothing."""
        stored = self.stored(frame)
        wanted = (value - frame.intercept) / frame.slope
        if np.issubdtype(stored.dtype, np.integer):
            low, high = self._range(frame.item)
            wanted = round(min(max(wanted, low), high))
        result = np.where(mask, np.asarray(wanted, stored.dtype), stored)
        return None if np.array_equal(result, stored) else result

    def _range(self, item: int) -> tuple[int, int]:
        bits = int(self.items[item].BitsStored)
        if int(self.items[item].PixelRepresentation):
            return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
        return 0, (1 << bits) - 1

    def write(self, changed: Changed) -> None:
        """Put changed frames back into their objects: all other frames keep their bytes."""
        for item in sorted({item for item, _ in changed}):
            frames = {number: stored for (other, number), stored in changed.items() if other == item}
            write(self.items[item], self._layouts[item], frames)
            _widen_range(self.items[item], min(int(stored.min()) for stored in frames.values()))


def _widen_range(dataset: Dataset, darkest: int) -> None:
    """Smallest Image Pixel Value, where stated, holds for what was filled in too."""
    stated = dataset.get("SmallestImagePixelValue")
    if isinstance(stated, int) and darkest < stated:
        dataset.SmallestImagePixelValue = darkest
