"""Font files found on this machine, split so that the bench never shows a font family that was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ImageFont

FOLDER = Path("/usr/share/fonts")
PACKAGES = (
    "fonts-nanum fonts-dejavu fonts-liberation fonts-freefont-ttf fonts-lato fonts-open-sans "
    "fonts-unfonts-core fonts-vlgothic fonts-noto-cjk fonts-noto-mono fonts-roboto-unhinted fonts-baekmuk "
    "fonts-inconsolata"
)
"""Debian packages with the files below."""
FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "train": {
        "latin": ("DejaVu*.ttf", "Liberation*.ttf", "Free*.ttf", "Lato-*.ttf", "OpenSans-*.ttf"),
        "hangul": ("Nanum*.ttf", "Un*.ttf", "NotoSansCJK-*.ttc"),
        "japanese": ("VL-*.ttf", "NotoSansCJK-*.ttc"),
        "cyrillic": ("DejaVuSans*.ttf", "Liberation*.ttf", "FreeMono*.ttf"),
    },
    "bench": {
        "latin": ("Roboto*.ttf", "NotoSansMono-*.ttf", "Inconsolata.otf"),
        "hangul": ("gulim.ttf", "dotum.ttf", "batang.ttf", "hline.ttf", "NotoSerifCJK-*.ttc"),
        "japanese": ("NotoSerifCJK-*.ttc",),
        "cyrillic": ("Roboto*.ttf", "NotoSansMono-*.ttf"),
    },
}
KOREAN_FACE = 1
"""Index of the Korean face in Noto's CJK collections."""
UNFIT = ("MathTeX", "Symbol", "Hairline")


@dataclass(frozen=True)
class Fonts:
    """Font files of one side of the split ("train" or "bench"), by script."""

    side: str

    def pick(self, rng: np.random.Generator, script: str, size: int) -> ImageFont.FreeTypeFont:
        """A font of the script in a size in pixels."""
        files = files_of(self.side, script)
        return load(files[int(rng.integers(len(files)))], size)


@cache
def files_of(side: str, script: str) -> tuple[Path, ...]:
    """Sorted font files. Raises FileNotFoundError with the packages to install if there are none."""
    found = {path for pattern in FAMILIES[side][script] for path in FOLDER.rglob(pattern)}
    fit = sorted(path for path in found if not any(word in path.name for word in UNFIT))
    if not fit:
        raise FileNotFoundError(f"no {script} fonts under {FOLDER}; apt-get install {PACKAGES}")
    return tuple(fit)


@cache
def load(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """An opened font."""
    return ImageFont.truetype(str(path), size, index=KOREAN_FACE if path.suffix == ".ttc" else 0)
