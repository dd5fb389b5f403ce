"""`python -m benchmarks.startup`: how long each command's `--help` takes, beside Python starting alone."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMIT_S = 0.5
FEDAI = str(Path(sys.executable).with_name("fedai"))
COMMANDS = ("", "demo", "study", "simulate", "compare", "site", "site deid", "site ledger", "server", "run")


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where the median of every command is below the limit, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--tries", type=int, default=10, metavar="N", help="of each command (10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.tries < 1:
        parser.error("--tries is 1 or more")
    rows = {"python -c pass": _median([sys.executable, "-c", "pass"], options.tries)}
    for command in COMMANDS:
        words = [*command.split(), "--help"]
        rows[f"fedai {' '.join(words)}"] = _median([FEDAI, *words], options.tries)
    within = all(seconds < LIMIT_S for seconds in rows.values())
    if options.json:
        print(json.dumps({"limit_s": LIMIT_S, "median_s": rows, "within_limits": within}))
    else:
        print("\n".join(f"{seconds:6.3f} s  {command}" for command, seconds in rows.items()))
    return 0 if within else 1


def _median(command: list[str], tries: int) -> float:
    """Seconds on the wall, of the middle try."""
    taken = []
    for _ in range(tries):
        begun = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - begun)
    return round(statistics.median(taken), 3)


if __name__ == "__main__":
    sys.exit(main())
