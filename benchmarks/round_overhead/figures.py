"""From the times of rounds to the table that is printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

TARGET = 1 / 6


@dataclass(frozen=True)
class Round:
    """Seconds from one close to the next, and of computing at the slowest site."""

    wall: float
    computing: float

    @property
    def overhead(self) -> float:
        return self.wall - self.computing


@dataclass(frozen=True)
class Spread:
    """Median and quartiles in seconds."""

    lower: float
    median: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    """Quartiles by linear interpolation between the values. Raises ValueError where there is none."""
    if not values:
        raise ValueError("no round was measured")
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(lower, median, upper)


def blocks(rounds: int, count: int) -> list[int]:
    """Share `rounds` out over at most `count` blocks, none empty: 10 over 4 is 3, 3, 2, 2."""
    count = max(1, min(count, rounds))
    return [rounds // count + (number < rounds % count) for number in range(count)]


def summary(ours: Sequence[Round], theirs: Sequence[Round]) -> dict[str, object]:
    """What is printed as JSON: both sides, ratio of the medians of the overhead, and the target."""
    ratio = spread([one.overhead for one in ours]).median / spread([one.overhead for one in theirs]).median
    sides = {"fedai": _side(ours), "flower": _side(theirs)}
    return {**sides, "ratio": ratio, "target": TARGET, "met": ratio <= TARGET}


def _side(rounds: Sequence[Round]) -> dict[str, object]:
    return {
        "rounds": len(rounds),
        "overhead_s": _listed([one.overhead for one in rounds]),
        "wall_s": _listed([one.wall for one in rounds]),
        "computing_s": _listed([one.computing for one in rounds]),
        "each": [{"wall_s": round(one.wall, 3), "computing_s": round(one.computing, 3)} for one in rounds],
    }


def _listed(values: Sequence[float]) -> list[float]:
    found = spread(values)
    return [round(value, 3) for value in (found.lower, found.median, found.upper)]


def table(ours: Sequence[Round], theirs: Sequence[Round]) -> list[str]:
    """The lines of the printed table; seconds, median (quartiles)."""
    lines = [f"{'seconds, median (quartiles)':30} {'fedai':>22} {'Flower FedAvg':>22}"]
    for title, name in (
        ("round, all of it", "wall"),
        ("computing, slowest site", "computing"),
        ("overhead", "overhead"),
    ):
        cells = [_cell([getattr(one, name) for one in rounds]) for rounds in (ours, theirs)]
        lines.append(f"{title:30} {cells[0]:>22} {cells[1]:>22}")
    told = summary(ours, theirs)
    verdict = "met" if told["met"] else "NOT met"
    lines.append(f"{'rounds measured':30} {len(ours):>22} {len(theirs):>22}")
    ratio = float(str(told["ratio"]))
    lines.append(f"ratio of the overheads: {ratio:.3f} (1/{1 / ratio:.1f}); target 1/6: {verdict}")
    return lines


def _cell(values: Sequence[float]) -> str:
    found = spread(values)
    return f"{found.median:.2f} ({found.lower:.2f} to {found.upper:.2f})"
