"""`python -m benchmarks.coverage`: how often 95% intervals hold the truth, and how often tests cry wolf."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.coverage.simulation import Tally

PREVALENCES = (0.05, 0.1, 0.2, 0.5)
FAMILY, FAMILY_PREVALENCE = 10, 0.2


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where all figures are within their limits, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--federations", type=int, default=2000, metavar="N", help="for each row (2000)")
    parser.add_argument("--seed", type=int, default=2026, metavar="N", help="of the invented federations")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.federations < 1:
        parser.error("--federations is 1 or more")
    result = _measure(options.federations, options.seed)
    print(json.dumps(result) if options.json else "\n".join(_lines(result)))
    return 0 if result["within_limits"] else 1


def _measure(federations: int, seed: int) -> dict[str, Any]:
    from benchmarks.coverage.simulation import family, tally
    from benchmarks.processes import machine

    begun = time.process_time()
    rows = []
    for prevalence in PREVALENCES:
        rows.append({"prevalence": prevalence, **_row(tally(prevalence, federations, seed))})
        print(f"prevalence {prevalence:.0%}: {time.process_time() - begun:.0f} CPU s", file=sys.stderr)
    answered, plain, adjusted = family(FAMILY, FAMILY_PREVALENCE, federations, seed)
    together = {"models": FAMILY, "federations": answered, "plain": plain, "adjusted": adjusted}
    return {
        "rows": rows,
        "family": together,
        "within_limits": _within(rows, adjusted / answered if answered else 0.0),
        "cpu_seconds": round(time.process_time() - begun),
        "machine": machine(),
    }


def _row(found: Tally) -> dict[str, Any]:
    return {
        "federations": found.federations,
        "refused": found.refused,
        "intervals": found.intervals,
        "absent": found.absent,
        "coverage": found.coverage,
        "too_high": found.above / found.intervals,
        "too_low": found.below / found.intervals,
        "width": found.widths / found.intervals,
        "image_coverage": found.image_covered / found.image_intervals,
        "tests": found.tests,
        "type_1_error": found.rejected / found.tests,
    }


def _within(rows: list[dict[str, Any]], family_wise: float) -> bool:
    covered = all(0.93 <= row["coverage"] <= 0.97 for row in rows)
    return covered and all(0.04 <= row["type_1_error"] <= 0.06 for row in rows) and family_wise <= 0.05


def _lines(result: dict[str, Any]) -> Iterator[str]:
    from benchmarks.coverage.simulation import margin_of_error
    from fedai.cli.output import table
    from fedai.score_comparison import FEWEST

    header = (
        "prevalence", "federations", "refused", "intervals", "coverage", "too high", "too low", "width",
        "by image", "type I error",
    )  # fmt: skip
    yield "95% intervals of AUROC by patient, and by image; paired tests at 5% of models that are equal"
    yield from table(header, [_cells(row) for row in result["rows"]])
    size, tests = (min(row[key] for row in result["rows"]) for key in ("intervals", "tests"))
    yield (
        f"Refused: fewer than {FEWEST} patients with a positive or a negative case. Chance (two standard "
        f"errors): coverage ±{100 * margin_of_error(0.95, size // 2):.1f}%, "
        f"type I error ±{100 * margin_of_error(0.05, tests):.1f}%."
    )
    together = result["family"]
    answered = together["federations"] or 1
    yield (
        f"{together['models']} equal models, all pairs, {answered} federations: some p below 5% in "
        f"{100 * together['plain'] / answered:.1f}%, after Holm's adjustment in "
        f"{100 * together['adjusted'] / answered:.1f}%."
    )
    yield "within the limits" if result["within_limits"] else "OUTSIDE the limits"
    yield f"{result['cpu_seconds']} CPU s; {result['machine']}"


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    shares = [row[k] for k in ("coverage", "too_high", "too_low")]
    return (
        f"{row['prevalence']:.0%}",
        row["federations"],
        row["refused"],
        row["intervals"],
        *(f"{100 * share:.1f}%" for share in shares),
        f"{row['width']:.3f}",
        f"{100 * row['image_coverage']:.1f}%",
        f"{100 * row['type_1_error']:.1f}%",
    )


if __name__ == "__main__":
    sys.exit(main())
