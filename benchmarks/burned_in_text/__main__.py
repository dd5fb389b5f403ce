"""`python -m benchmarks.burned_in_text`: text burned into real pictures, found by our detector and by its
peer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from fedai_site.deidentify.pixels.boxes import Box, covered
from fedai_site.deidentify.pixels.detector import WEIGHTS, Detector, all_sizes
from numpy.typing import NDArray

from benchmarks.burned_in_text.corpus import Case, corpus
from benchmarks.burned_in_text.peer import Peer, model_path
from benchmarks.burned_in_text.real import pictures

FOUND = 0.9
"""Share of a line's ink that must lie under boxes for the line to count as found."""
FAINT = 60
INVISIBLE = 5
Find = Callable[[NDArray[np.uint8]], list[Box]]


@dataclass
class Tally:
    """What one detector did: for each line (contrast, script, size, found); for each picture what was
    touched.
    """

    lines: list[tuple[float, str, int, bool]] = field(default_factory=list)
    pictures: list[tuple[str, bool, float]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, case: Case, found: list[Box], seconds: float) -> None:
        """Count one picture."""
        mask = covered(found, (case.picture.shape[0], case.picture.shape[1]))
        hits = [bool(mask[line.ink].mean() >= FOUND) for line in case.lines]
        self.lines += [
            (line.contrast, line.script, line.size, hit) for line, hit in zip(case.lines, hits, strict=True)
        ]
        good = all(hits) if case.kind == "text" else bool(mask.any())
        self.pictures.append((case.kind, good, float(mask.mean())))
        self.seconds += seconds

    def figures(self) -> dict[str, float]:
        """The rows of the table: shares in percent, seconds of CPU for each picture."""
        lines = self.lines
        of_kind = {
            kind: [good for k, good, _ in self.pictures if k == kind] for kind in ("text", "none", "clutter")
        }
        return {
            "lines found": _share([hit for *_, hit in lines]),
            f"lines of contrast {INVISIBLE}-{FAINT} found": _share(
                [h for c, _, _, h in lines if INVISIBLE <= c < FAINT]
            ),
            f"lines of contrast 0-{FAINT} found": _share(
                [hit for contrast, _, _, hit in lines if contrast < FAINT]
            ),
            f"lines of contrast {FAINT}-255 found": _share(
                [hit for contrast, _, _, hit in lines if contrast >= FAINT]
            ),
            "Latin and digits found": _share([hit for _, script, _, hit in lines if script == "latin"]),
            "Hangul found": _share([hit for _, script, _, hit in lines if script == "hangul"]),
            "pictures with all lines found": _share(of_kind["text"]),
            "textless pictures touched": _share(of_kind["none"]),
            "textless pictures with clutter touched": _share(of_kind["clutter"]),
            "of the area of textless pictures": 100
            * float(np.mean([a for k, _, a in self.pictures if k == "none"])),
            "CPU seconds a picture": self.seconds / max(1, len(self.pictures)),
        }


def _share(hits: list[bool]) -> float:
    return 100 * sum(hits) / len(hits) if hits else float("nan")


def detectors(weights: Path, peer: Path | None) -> dict[str, Find]:
    """Ours (thorough and fast), and the peer at two scales and at one if it is there."""
    ours = Detector(weights)
    found: dict[str, Find] = {
        f"{ours.name}, all sizes": lambda picture: ours.boxes(
            picture.astype(np.float32), all_sizes(picture.shape[0], picture.shape[1])
        ),
        "ours, one size": lambda picture: ours.boxes(picture.astype(np.float32)),
    }
    if peer is not None:
        for scales in ((1.0, 1.6), (1.0,)):
            other = Peer(peer, scales)
            found[other.name] = other.boxes
    return found


def measure(cases: list[Case], finds: dict[str, Find]) -> dict[str, Tally]:
    """Every detector over every picture."""
    tallies = {name: Tally() for name in finds}
    for case in cases:
        for name, find in finds.items():
            started = time.process_time()
            boxes = find(case.picture)
            tallies[name].add(case, boxes, time.process_time() - started)
    return tallies


def table(columns: dict[str, dict[str, float]]) -> list[str]:
    """A Markdown table."""
    rows = list(next(iter(columns.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return lines + [
        f"| {row} | {' | '.join(_cell(row, column) for column in columns.values())} |" for row in rows
    ]


def _cell(row: str, column: dict[str, float]) -> str:
    return f"{column[row]:.2f}" if "second" in row else f"{column[row]:.1f}"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. Exit 0; 1 if there is nothing to measure on."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.burned_in_text", description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument(
        "--peer", type=Path, default=model_path(), help="PP-OCRv3's ONNX file, if isocenter isn't installed"
    )
    parser.add_argument("--texts", type=int, default=130, help="pictures with text")
    parser.add_argument("--empties", type=int, default=52, help="pictures without")
    parser.add_argument("--side", choices=["bench", "train"], default="bench", help="which real pictures")
    parser.add_argument("--folders", type=Path, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=2027)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    site_packages = Path(pydicom.__file__).parents[1]
    real = pictures(options.side, (site_packages / "pydicom", site_packages / "data_store", *options.folders))
    if not real:
        print("no real pictures: pip install pydicom-data", file=sys.stderr)
        return 1
    cases = list(corpus(real, options.texts, options.empties, options.seed))
    tallies = measure(cases, detectors(options.weights, options.peer))
    figures: dict[str, Any] = {name: tally.figures() for name, tally in tallies.items()}
    if options.json:
        print(json.dumps(figures))
        return 0
    lines = [line for case in cases for line in case.lines]
    faint, unseen = (sum(line.contrast < level for line in lines) for level in (FAINT, INVISIBLE))
    print(f"{len(cases)} pictures from {len(real)} real ones; {len(lines)} lines, of which {faint} have a")
    print(f"contrast below {FAINT} grey levels and {unseen} below {INVISIBLE}")
    print("\n".join(table(figures)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
