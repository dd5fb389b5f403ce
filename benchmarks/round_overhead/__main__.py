"""`python -m benchmarks.round_overhead`: blocks of ours and of Flower's in turn, then the table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where the target is met, 1 where it isn't."""
    options = _parser().parse_args(arguments)
    if options.rounds < 1 or options.blocks < 1:
        _parser().error("--rounds and --blocks are 1 or more")
    from benchmarks.round_overhead.measurement import measure_both
    from fedai.errors import FedaiError

    try:
        with tempfile.TemporaryDirectory(prefix="round-overhead-") as temporary:
            folder = (options.keep or Path(temporary)).absolute()
            told, lines = measure_both(folder, options.rounds, options.blocks)
    except FedaiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(told, indent=1) if options.json else "\n".join(lines))
    return 0 if told["met"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.round_overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="rounds measured on each side (10)")
    parser.add_argument("--blocks", type=int, default=2, help="blocks that they are shared out over (2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object with every round")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this new folder and leave it, logs and all"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
