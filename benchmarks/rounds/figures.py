"""From the rounds of all sides to the table that is printed, and to what `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.round_overhead.figures import Round, Spread, spread

OURS = "fedai"


def summary(sides: Mapping[str, Sequence[Round]]) -> dict[str, object]:
    """Every side, and the ratio of fedai's median overhead to it; ahead where each ratio is below 1."""
    overheads = {side: spread([one.overhead for one in rounds]) for side, rounds in sides.items()}
    ours = overheads.pop(OURS).median
    ratios = {side: ours / found.median for side, found in overheads.items()}
    told = {side: _side(rounds) for side, rounds in sides.items()}
    return {"sides": told, "ratios": ratios, "ahead": max(ratios.values(), default=0.0) < 1}


def _side(rounds: Sequence[Round]) -> dict[str, object]:
    return {
        "rounds": len(rounds),
        **{f"{name}_s": _listed(values) for name, values in _columns(rounds).items()},
        "each": [{"wall_s": round(one.wall, 3), "computing_s": round(one.computing, 3)} for one in rounds],
    }


def _columns(rounds: Sequence[Round]) -> dict[str, list[float]]:
    return {name: [getattr(one, name) for one in rounds] for name in ("wall", "computing", "overhead")}


def _listed(values: Sequence[float]) -> list[float]:
    found = spread(values)
    return [round(value, 3) for value in (found.lower, found.median, found.upper)]


def table(sides: Mapping[str, Sequence[Round]]) -> list[str]:
    """The printed lines: a row a side; seconds, median (quartiles)."""
    columns = f"{'round':>24}{'computing':>24}{'the rest':>24}{'rounds':>8}{'ratio':>8}"
    head = f"{'seconds, median (quartiles)':28}{columns}"
    told = summary(sides)
    ratios: dict[str, float] = told["ratios"]  # type: ignore[assignment]
    rows = [_row(side, rounds, ratios.get(side)) for side, rounds in sides.items()]
    verdict = "ahead of each" if told["ahead"] else "NOT ahead of each"
    return [head, *rows, *([f"ratio: fedai's rest to the side's; fedai is {verdict}"] if ratios else [])]


def _row(side: str, rounds: Sequence[Round], ratio: float | None) -> str:
    cells = "".join(f"{_cell(spread(values)):>24}" for values in _columns(rounds).values())
    return f"{side:28}{cells}{len(rounds):8}{'' if ratio is None else f'{ratio:.2f}':>8}"


def _cell(found: Spread) -> str:
    return f"{found.median:.2f} ({found.lower:.2f} to {found.upper:.2f})"
