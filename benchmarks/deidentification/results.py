"""The table that is printed: one row for what the issue asks, one column for each tool."""

from __future__ import annotations

from typing import Any

Told = dict[str, Any]


def lines(all_told: list[Told], missing: dict[str, str]) -> list[str]:
    """Aligned columns; tools that could not be measured are named below with the reason."""
    rows = [["", *(told["tool"] for told in all_told)]]
    rows += [[name, *(_cell(row, told) for told in all_told)] for name, row in ROWS]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    return [*text, *(f"{name} was not measured: {why}" for name, why in missing.items())]


def markdown(all_told: list[Told]) -> list[str]:
    head = ["", *(told["tool"] for told in all_told)]
    rows = [[name, *(_cell(row, told) for told in all_told)] for name, row in ROWS]
    return [_bar(head), _bar(["---"] * len(head)), *(_bar(row) for row in rows)]


def _bar(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Any, told: Told) -> str:
    try:
        return str(row(told))
    except (KeyError, TypeError, ZeroDivisionError):
        return "-"


def _percent(value: float | None, digits: int = 1) -> str:
    if value is None:
        return "-"
    return "100%" if value == 100 else "0%" if value == 0 else f"{value:.{digits}f}%"


def _exact(told: Told, option: str) -> str:
    return "/".join(
        _percent(one["percent"]) if one["percent"] is not None else "not written"
        for one in told["table"][option]
    )


def _options(told: Told) -> str:
    found = [one["percent"] for option, both in told["table"].items() if option != "basic" for one in both]
    return _percent(min(found)) if found else "has none"


def _references(told: Told) -> str:
    resolving, dropped, dangling = told["links"]["references"]
    return f"{resolving} / {dropped} / {dangling}"


def _intervals(told: Told) -> str:
    kept, lost, same = told["links"]["intervals"]
    return f"{kept} / {lost} / {same}"


def _pixels(told: Told) -> str:
    real = told["real"]
    good = real.get("identical", 0) + real.get("blanked", 0)
    with_pixels = good + sum(real.get(name, 0) for name in ("changed", "pixels lost", "pixels undecodable"))
    return f"{good} of {with_pixels} ({real.get('blanked', 0)} blanked)"


ROWS = (
    ("corpus: files written", lambda told: f"{told['corpus']['files_written']} of {told['corpus']['files']}"),
    ("corpus: identifiers leaked", lambda told: _percent(told["corpus"]["leaked_percent"], 2)),
    ("corpus: files with a leak", lambda told: _percent(told["corpus"]["files_with_leaks_percent"])),
    ("Table E.1-1, Basic, top/nested", lambda told: _exact(told, "basic")),
    ("Table E.1-1, the worst option", _options),
    ("real files: written", lambda told: f"{told['real']['written']} of {told['real']['files']}"),
    ("real files: with a listed value left", lambda told: str(len(told["real"]["listed_left"]))),
    ("real files: with private left", lambda told: str(told["real"].get("private", 0))),
    ("real files: pixels intact", _pixels),
    ("real files: new dciodvfy errors", lambda told: str(told["real"]["files_with_new_errors"])),
    ("patients", lambda told: told["links"]["patients"]),
    ("UIDs one to one", lambda told: _percent(told["links"]["uids_percent"])),
    ("references resolving/dropped/dangling", _references),
    ("two batches agree", lambda told: "yes" if told["links"]["batches_agree"] else "no"),
    ("names shared with another key", lambda told: str(told["links"]["in_common_with_other_key"])),
    ("patients with intervals kept/lost/unshifted", _intervals),
    (
        "CT slices a second (plain copy)",
        lambda told: f"{told['speed']['files_per_second']:.0f} ({told['speed']['plain']:.0f})",
    ),
    ("speed against the plain copy", lambda told: f"{told['speed']['ratio']:.2f}x"),
)
