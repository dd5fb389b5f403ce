"""Take the face off two real heads and say what is left: see README.md."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from fedai_site.deidentify.faces import deface, picture, tissue
from fedai_site.deidentify.faces.defacing import air
from fedai_site.deidentify.faces.grid import to_grid
from fedai_site.quarantine import Quarantine
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.faces import heads

Mask = NDArray[np.bool_]
CH2_PLACES = {
    "nose": (0.0, -85.0, -55.0),
    "left eye": (33.0, -62.0, -38.0),
    "right eye": (-36.0, -62.0, -38.0),
}
"""LPS millimetres in the MR, read off its pictures."""


def main() -> int:
    """Print a table, or JSON; with --out also PNGs of the heads' surfaces before (above) and after."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faces", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for the renderings")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    try:
        rows = [measure("MR", asked.out), measure("CT", asked.out)]
    except (FileNotFoundError, Quarantine) as error:
        print(error, file=sys.stderr)
        return 1
    if asked.json:
        print(json.dumps(rows))
    else:
        print(
            "| head | brain voxels changed | gone | surface lies back by | CPU seconds |\n"
            "|---|---|---|---|---|"
        )
        for row in rows:
            print("| {head} | {brain} of {of} | {gone} | {moved} mm | {seconds} |".format(**row))
    return 0


def measure(modality: str, out: Path | None) -> dict[str, object]:
    """One head: what was changed, judged by what our code doesn't see (a mask, Hounsfield units)."""
    volume, affine = heads.ch2() if modality == "MR" else heads.cranium()
    brain = heads.ch2_brain() if modality == "MR" else brain_of_ct(volume)
    mask, findings = deface(volume, affine, modality)
    cleared = np.where(mask, np.float32(air(volume, modality)), volume)
    gone = places_gone(mask, affine) if modality == "MR" else nose_gone(volume, cleared)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        grids = [to_grid(each, affine) for each in (volume, cleared)]
        level = tissue.threshold(grids[0].values, modality)
        before, after = (picture.render(grid, level) for grid in grids)
        (out / f"{modality}.png").write_bytes(picture.png(picture.above(before, after)))
    return {
        "head": f"{modality} {'ch2' if modality == 'MR' else 'Cranium'}",
        "brain": int((mask & brain).sum()),
        "of": int(brain.sum()),
        "gone": gone,
        "moved": findings.moved,
        "seconds": findings.seconds,
    }


def places_gone(mask: Mask, affine: NDArray[np.float64]) -> str:
    """Which of the MR's places are replaced."""
    gone = []
    for name, place in CH2_PLACES.items():
        x, y, z = np.rint(np.linalg.solve(affine[:3, :3], np.array(place) - affine[:3, 3])).astype(int)
        gone += [name] if mask[z, y, x] else []
    return ", ".join(gone) or "nothing"


def nose_gone(volume: NDArray[np.float32], cleared: NDArray[np.float32]) -> str:
    """By how much the foremost point of the CT's lower middle, the tip of the nose, lies back."""
    first, after = (_frontmost(each[:40, :, 100:156] > -200) for each in (volume, cleared))
    tip = np.unravel_index(np.argmax(first), first.shape)
    return f"nose: its tip lies {(first[tip] - after[tip]) * 0.957:.0f} mm back"


def brain_of_ct(volume: NDArray[np.float32]) -> Mask:
    """The largest part of soft tissue (0 to 80 HU) after eroding 6 voxels, grown by 3: the brain's core."""
    core = ndimage.binary_erosion((volume > 0) & (volume < 80), iterations=6)
    labels, _ = ndimage.label(core)
    return np.asarray(
        ndimage.binary_dilation(labels == np.bincount(labels[labels > 0]).argmax(), iterations=3)
    )


def _frontmost(tissue_: Mask) -> NDArray[np.int64]:
    """The highest row with tissue, (slices, columns)."""
    rows = np.arange(tissue_.shape[1])[None, :, None]
    return np.asarray(np.where(tissue_, rows, 0).max(axis=1))


if __name__ == "__main__":
    sys.exit(main())
