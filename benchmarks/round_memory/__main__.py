"""`python -m benchmarks.round_memory`: a round with few answers and one with many, in a process each."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

MOST_GROWTH = 1.3


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where many answers take at most 1.3 times the memory of few, 1 where they take more."""
    options = _parser().parse_args(arguments)
    rounds = [
        {"strategy": strategy, "replies": replies, **measure(strategy, replies, options.megabytes)}
        for strategy in options.strategy or ["FedAvg"]
        for replies in (options.few, options.many)
    ]
    ratios = {
        few["strategy"]: many["peak"] / few["peak"]
        for few, many in zip(rounds[::2], rounds[1::2], strict=True)
    }
    met = all(ratio <= MOST_GROWTH for ratio in ratios.values())
    told = {"megabytes": options.megabytes, "rounds": rounds, "ratios": ratios, "met": met}
    print(json.dumps(told, indent=1) if options.json else "\n".join(_lines(told)))
    return 0 if met else 1


def measure(strategy: str, replies: int, megabytes: int) -> dict[str, Any]:
    """Peak memory (bytes) and seconds of one round."""
    command = [sys.executable, "-m", "benchmarks.round_memory.replay", strategy, str(replies), str(megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if facts["answered"] != replies:
        raise SystemExit(f"{facts['answered']} of {replies} answers were folded in: {done.stderr[-2000:]}")
    return facts


def _lines(told: dict[str, Any]) -> list[str]:
    lines = [f"{'strategy':16}{'replies':>8}{'MB each':>8}{'peak MB':>9}{'before MB':>11}{'seconds':>9}"]
    lines += [
        f"{one['strategy']:16}{one['replies']:8}{told['megabytes']:8}{one['peak'] / 1e6:9.0f}"
        f"{one['before'] / 1e6:11.0f}{one['seconds']:9.1f}"
        for one in told["rounds"]
    ]
    lines += [f"{name}: {ratio:.2f} times (at most {MOST_GROWTH})" for name, ratio in told["ratios"].items()]
    return [*lines, "met" if told["met"] else "not met"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.round_memory", description=__doc__)
    parser.add_argument("--strategy", action="append", help="a strategy's name; repeatable (FedAvg)")
    parser.add_argument("--megabytes", type=int, default=100, help="size of an update (100)")
    parser.add_argument("--few", type=int, default=2, help="answers in the small round (2)")
    parser.add_argument("--many", type=int, default=64, help="answers in the large round (64)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
