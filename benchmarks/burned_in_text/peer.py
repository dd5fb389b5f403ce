"""The peer: PP-OCRv3's text detector (Apache-2.0, PaddleOCR), read from an installed PyPI `isocenter` (or a
path),
run with OpenCV's dnn at 1x and 1.6x, thresholds 0.2/0.35, a margin of 25% of the box's height.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
MEAN = (122.68, 116.67, 104.01)
"""Of the colours that the model was trained with, which isocenter subtracts before it divides by 255."""
PIXEL, GROUP, MARGIN = 0.2, 0.35, 0.25
UNCLIP = 2.0
"""How far a found kernel is grown to the text it stands for (DB, Liao et al., AAAI 2020)."""
SCALES = (1.0, 1.6)
RESOURCE = Path("resources/text_detection_en_ppocrv3_2023may.onnx")


def model_path() -> Path | None:
    """Where an installed isocenter keeps the model, if it is installed."""
    spec = importlib.util.find_spec("isocenter")
    places = [Path(place) / RESOURCE for place in (spec.submodule_search_locations or [])] if spec else []
    return next((path for path in places if path.is_file()), None)


class Peer:
    """PP-OCRv3's detector."""

    def __init__(self, path: Path, scales: tuple[float, ...] = SCALES) -> None:
        import cv2

        cv2.setNumThreads(1)
        self._cv2: Any = cv2
        self._network = cv2.dnn.readNet(str(path))
        self._scales = scales
        self.name = f"PP-OCRv3 at {' + '.join(f'{scale:g}x' for scale in scales)}"

    def boxes(self, picture: NDArray[np.uint8]) -> list[Box]:
        """Boxes in a grey picture (H, W)."""
        return [box for scale in self._scales for box in self._at(picture, scale)]

    def _at(self, picture: NDArray[np.uint8], scale: float) -> list[Box]:
        cv2 = self._cv2
        rows, columns = picture.shape
        size = [max(32, round(side * scale / 32) * 32) for side in (columns, rows)]
        colour = np.repeat(cv2.resize(picture, size)[:, :, None], 3, 2).astype(np.float32)
        normal = (colour - np.float32(MEAN)) / np.float32(255)
        self._network.setInput(np.ascontiguousarray(normal.transpose(2, 0, 1)[None]))
        chance = self._network.forward().squeeze()
        _, _, stats, _ = cv2.connectedComponentsWithStats((chance > PIXEL).astype(np.uint8), connectivity=8)
        down, across = rows / chance.shape[0], columns / chance.shape[1]
        found: list[Box] = []
        for left, top, width, height, area in stats[1:]:
            inside = chance[top : top + height, left : left + width]
            if area < 6 or inside[inside > PIXEL].mean() < GROUP:
                continue
            grow = width * height * UNCLIP / (2 * (width + height))
            margin = MARGIN * (height + 2 * grow) * down
            found.append(
                (
                    max(0, int((top - grow) * down - margin)),
                    max(0, int((left - grow) * across - margin)),
                    min(rows, int((top + height + grow) * down + margin) + 1),
                    min(columns, int((left + width + grow) * across + margin) + 1),
                )
            )
        return found
