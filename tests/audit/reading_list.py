"""`python tests/audit/reading_list.py` puts the line counts of the reviewer's reading list right.

The modules are those that sites/README.md names; a new one behind walls 1 to 3 is added there by hand.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "sites" / "README.md"
ROW = re.compile(r"^\| (?P<module>[\w/]+\.py) \| (?P<lines>[\d,]+) \|$", re.M)
TOTAL = re.compile(r"[\d,]+ lines(?=[:.])")


def told() -> dict[str, int]:
    """Module -> lines, as sites/README.md says."""
    rows = ROW.finditer(README.read_text(encoding="utf-8"))
    return {row["module"]: int(row["lines"].replace(",", "")) for row in rows}


def counted(module: str) -> int:
    """Lines of a module, comments and docstrings and all."""
    return len((ROOT / module).read_text(encoding="utf-8").splitlines())


def as_it_is(text: str) -> str:
    """The README's text with every line count as it is now."""
    text = ROW.sub(lambda row: f"| {row['module']} | {counted(row['module'])} |", text)
    return TOTAL.sub(lambda total: f"{sum_of(_tables(text)[total.start()]):,} lines", text)


def sum_of(table: str) -> int:
    return sum(int(row["lines"]) for row in ROW.finditer(table))


def _tables(text: str) -> dict[int, str]:
    """Where a total is told -> the text from there to the next one."""
    starts = [total.start() for total in TOTAL.finditer(text)]
    return {start: text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)}


if __name__ == "__main__":
    README.write_text(as_it_is(README.read_text(encoding="utf-8")), encoding="utf-8")
