"""`python -m benchmarks.real_images`: MedNIST as DICOM at three sites, a six-class study, models compared."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.real_images.experiment import Outcome


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where all images are accounted for, or where there are none; 1 where some are missing."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.per_class is not None and options.per_class < 1:
        parser.error("--per-class is 1 or more")
    from benchmarks.real_images.images import WHERE

    source = options.images or WHERE
    if not source.is_file():
        print(f"no images at {source}: nothing was run (give them with --images FILE)")
        return 0
    return _run(options, source)


def _run(options: argparse.Namespace, source: Path) -> int:
    from benchmarks.real_images.experiment import run
    from benchmarks.real_images.results import missing
    from fedai.errors import FedaiError

    try:
        with tempfile.TemporaryDirectory(prefix="real-images-") as temporary:
            outcome = run((options.keep or Path(temporary)).absolute(), source, options.per_class)
    except FedaiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    faults = missing(outcome.record["cohorts"], outcome.exported)
    if options.json:
        print(json.dumps(_json(outcome, faults)))
    else:
        print("\n".join(_lines(outcome, faults)))
    return 1 if faults else 0


def _lines(outcome: Outcome, faults: list[str]) -> Iterator[str]:
    from benchmarks.processes import machine
    from benchmarks.real_images.images import ATTRIBUTION
    from benchmarks.real_images.results import accounting, side_by_side

    total = sum(outcome.exported.values())
    yield from accounting(outcome.record["cohorts"], outcome.exported, outcome.comparison.classes)
    yield "; ".join(faults) if faults else f"all {total} images are accounted for"
    yield ""
    yield from side_by_side(outcome.comparison)
    yield ""
    rounds = len(outcome.record["rounds"])
    yield f"{rounds} rounds; {outcome.seconds:.0f} s from images to tables; {machine()}"
    yield ATTRIBUTION


def _json(outcome: Outcome, faults: list[str]) -> dict[str, Any]:
    from benchmarks.processes import machine
    from benchmarks.real_images.images import ATTRIBUTION

    return {
        "exported": outcome.exported,
        "cohorts": outcome.record["cohorts"],
        "unaccounted": faults,
        "rounds": len(outcome.record["rounds"]),
        "seconds": round(outcome.seconds, 1),
        **outcome.comparison.to_json(),
        "machine": machine(),
        "attribution": ATTRIBUTION,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_images", description=__doc__)
    parser.add_argument(
        "--images", type=Path, metavar="FILE", help="another .npz with images, labels and classes"
    )
    parser.add_argument(
        "--per-class", type=int, metavar="N", help="take the first N images of each class alone"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this new folder and leave it, logs and all"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
