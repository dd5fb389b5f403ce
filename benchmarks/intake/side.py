"""One side of the comparison in a process of its own: prints one JSON object.

`python -m benchmarks.intake.side pydicom EXPORT` reads and decodes each file with pydicom and nothing else.
`python -m benchmarks.intake.side fedai EXPORT HOME PROCESSES` brings it into a new home.
"""

from __future__ import annotations

import json
import resource
import secrets
import sys
import time
from pathlib import Path
from typing import Any


def read_with_pydicom(export: Path) -> int:
    """How many files were read and decoded."""
    import pydicom

    number = 0
    for path in export.rglob("*.dcm"):
        number += pydicom.dcmread(path).pixel_array.size > 0
    return number


def add(export: Path, home: Path, processes: int) -> int:
    """How many objects are in the catalogue of a new home afterwards."""
    from fedai_site.adding import add_data

    (home / "keys").mkdir(parents=True)
    (home / "keys" / "pseudonym.key").write_bytes(secrets.token_bytes(32))
    (home / "keys" / "pseudonym.key").chmod(0o600)
    return add_data(home, export, None, pixels=False, processes=processes or None).written


def main(words: list[str]) -> dict[str, Any]:
    """Objects, seconds, and peak resident memory in bytes: of this process, and of the largest other one."""
    kind, export, *rest = words
    begun = time.perf_counter()
    number = (
        read_with_pydicom(Path(export))
        if kind == "pydicom"
        else add(Path(export), Path(rest[0]), int(rest[1]))
    )
    seconds = time.perf_counter() - begun
    peaks = [
        resource.getrusage(who).ru_maxrss << 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return {"objects": number, "seconds": round(seconds, 2), "peak": peaks[0], "peak_of_workers": peaks[1]}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
