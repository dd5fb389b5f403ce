"""`python -m benchmarks.rounds`: rounds of fedai, Flower and NVFLARE, block by block, then the table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

CACHE = Path.home() / ".cache" / "fedai-benchmarks" / "rounds"
PEERS = ("flower", "simulator", "poc")


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where fedai's rest is below that of every side measured, 1 where it isn't."""
    options = _parser().parse_args(arguments)
    if options.rounds < 1 or options.blocks < 1:
        _parser().error("--rounds and --blocks are 1 or more")
    from benchmarks.rounds.measurement import measure_all
    from fedai.errors import FedaiError

    try:
        with tempfile.TemporaryDirectory(prefix="rounds-") as temporary:
            folder = (options.keep or Path(temporary)).absolute()
            told, lines = measure_all(
                folder, options.rounds, options.blocks, options.peers, options.environments
            )
    except FedaiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(told, indent=1) if options.json else "\n".join(lines))
    return 0 if told["ahead"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounds", description=__doc__)
    parser.add_argument("--rounds", type=int, default=12, help="rounds measured on each side (12)")
    parser.add_argument("--blocks", type=int, default=3, help="blocks that they are shared out over (3)")
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=list(PEERS), help="what is measured beside fedai (all)"
    )
    parser.add_argument(
        "--environments",
        type=Path,
        default=CACHE,
        metavar="FOLDER",
        help=f"where NVFLARE is installed ({CACHE})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object with every round")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="work in this new folder and leave it, logs and all"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
