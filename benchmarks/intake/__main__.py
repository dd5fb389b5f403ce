"""`python -m benchmarks.intake`: `add-data` against pydicom that reads the same files, and memory by size."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.intake.exports import write_export

MOST_GROWTH = 1.2


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where ten times as many objects take at most 1.2 times the memory, 1 where they take more."""
    options = _parser().parse_args(arguments)
    few = max(1, options.objects // 10)
    folder = Path(tempfile.mkdtemp(prefix="intake-", dir=options.folder))
    try:
        write_export(folder / "few", 0, few)
        write_export(folder / "many", 0, options.objects)
        rows = []
        for export in ("few", "many"):
            rows.append({"side": "pydicom", **measure("pydicom", folder / export)})
            home = folder / f"home-{export}"
            rows.append({"side": "fedai", **measure("fedai", folder / export, home, options.processes)})
            shutil.rmtree(home)
    finally:
        shutil.rmtree(folder)
    told = summary(rows, options.processes)
    print(json.dumps(told, indent=1) if options.json else "\n".join(_lines(told)))
    return 0 if told["met"] else 1


def measure(*words: object) -> dict[str, Any]:
    """What one side did, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.intake.side", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def summary(rows: list[dict[str, Any]], processes: int) -> dict[str, Any]:
    """With the growth of memory, and fedai's objects a second as a part of pydicom's, by size."""
    ours = [row for row in rows if row["side"] == "fedai"]
    growth = max(ours[1][name] / ours[0][name] for name in ("peak", "peak_of_workers") if ours[0][name])
    parts = {
        str(ours_row["objects"]): round(rate(ours_row) / rate(row), 3)
        for row, ours_row in zip(rows[::2], rows[1::2], strict=True)
    }
    return {"processes": processes, "rows": rows, "part_of_pydicoms_speed": parts,
            "growth_of_memory": round(growth, 3), "met": growth <= MOST_GROWTH}  # fmt: skip


def rate(row: dict[str, Any]) -> float:
    """Objects a second."""
    return float(row["objects"] / row["seconds"])


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [f"{'side':10}{'objects':>9}{'seconds':>9}{'a second':>10}{'peak MB':>9}{'a worker':>10}"]
    lines += [
        f"{row['side']:10}{row['objects']:9}{row['seconds']:9.1f}{rate(row):10.0f}{row['peak'] / 1e6:9.0f}"
        f"{row['peak_of_workers'] / 1e6:10.0f}"
        for row in told["rows"]
    ]
    parts = told["part_of_pydicoms_speed"].items()
    lines += [f"{number} objects: {part:.3f} times the speed of pydicom alone" for number, part in parts]
    lines += [f"memory of ten times as many: {told['growth_of_memory']:.3f} times (at most {MOST_GROWTH})"]
    return [*lines, "met" if told["met"] else "not met"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.intake", description=__doc__)
    parser.add_argument(
        "--objects", type=int, default=20_000, metavar="N", help="in the large export (20000)"
    )
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="of add-data; 0: its default (1)"
    )
    parser.add_argument("--folder", type=Path, help="where the exports and homes go meanwhile")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
