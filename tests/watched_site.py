"""`fedai site start` that writes down what is in each training batch, for tests.

`watched_site.py OUT site start HOME`: OUT gets one line for each batch, when it is drawn: the time (ns) and
the SHA-256 of each image.
"""

from __future__ import annotations

import json
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import fedai.training
from fedai.cli.app import run


def watch(out: Path) -> None:
    """Put a witness where batches are drawn."""
    to_input = fedai.training.to_input

    def watched(images: Any, device: Any) -> Any:
        line = {"at": time.time_ns(), "images": [sha256(image.tobytes()).hexdigest() for image in images]}
        with out.open("a", encoding="ascii") as file:
            file.write(json.dumps(line) + "\n")
        return to_input(images, device)

    fedai.training.to_input = watched


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.exit(run(sys.argv[2:]))
