"""`python -m benchmarks.deidentification`: a corpus full of identifiers through other tools and ours."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CACHE = Path.home() / ".cache" / "fedai-benchmarks" / "deidentification"


def main(arguments: list[str] | None = None) -> int:
    """Exit 0 where nothing of ours leaked, 1 where something did."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="deidentification-") as temporary:
        told, lines = _measure_all((options.keep or Path(temporary)).absolute(), options)
    print(json.dumps(told, indent=1, ensure_ascii=False) if options.json else "\n".join(lines))
    ours = [one for one in told["tools"] if one["tool"] == "fedai"]
    return 1 if any(one["corpus"]["leaked"] for one in ours) else 0


def _measure_all(folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    from benchmarks.deidentification import measurement, peers, results
    from benchmarks.processes import machine

    files, slices, rounds = (200, 10, 2) if options.quick else (options.files, 100, 4)
    material = measurement.prepare(folder, options.environments, files, slices, rounds, options.seed)
    tools, missing = [], {}
    for peer in peers.PEERS:
        if options.tool and peer.name not in options.tool:
            continue
        why = peers.make(peer, options.environments)
        if why:
            missing[peer.name] = why
        else:
            tools.append(measurement.peer_tool(peer, options.environments))
    if not options.tool or "fedai" in options.tool:
        tools.append(measurement.our_tool(Path(sys.executable)))
    told = []
    for tool in tools:
        print(f"measuring {tool.name} ...", file=sys.stderr)
        told.append(measurement.measure(tool, material))
        if not options.keep:
            shutil.rmtree(folder / "out" / tool.name)
    more = [] if options.quick or options.tool else _pixel_benches()
    head = f"{files} files, seed {options.seed}; {machine()}"
    rows = results.markdown(told) if options.markdown else results.lines(told, missing)
    return {"machine": machine(), "seed": options.seed, "files": files, "tools": told}, [
        head,
        "",
        *rows,
        *more,
    ]


def _pixel_benches() -> list[str]:
    """What the benches of burned-in text and of faces print, where they are there and can run."""
    from importlib.util import find_spec

    from benchmarks.processes import one_thread

    lines = []
    for name in ("benchmarks.burned_in_text", "benchmarks.faces"):
        if find_spec(f"{name}.__main__") is not None:
            print(f"measuring {name} ...", file=sys.stderr)
            command = [sys.executable, "-m", name]
            done = subprocess.run(command, capture_output=True, text=True, env=one_thread(), check=False)
            told = done.stdout if not done.returncode else f"not measured: {done.stderr[-300:]}"
            lines += ["", f"python -m {name}", "", *told.splitlines()]
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deidentification", description=__doc__)
    parser.add_argument("--files", type=int, default=2000, help="files of the corpus (2000)")
    parser.add_argument(
        "--quick", action="store_true", help="200 files, fewer slices and rounds: some minutes"
    )
    parser.add_argument("--seed", type=int, default=2026, help="another seed, another corpus (2026)")
    parser.add_argument(
        "--tool", action="append", help="only this one: fedai or a peer's name; may be repeated"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with everything that was found"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table for a README")
    parser.add_argument(
        "--environments",
        type=Path,
        default=CACHE,
        metavar="FOLDER",
        help=f"where peers are installed ({CACHE})",
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in this new folder and leave it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
