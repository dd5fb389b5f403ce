"""This project's command as a site would run it: header, pixels, faces, evidence."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import fedai, one_thread


def clean_folder(
    source: Path, out: Path, key: str, profile: str = "basic", processes: int = 2, more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`fedai site deid run` with mirrored names. Raises RuntimeError where the command fails."""
    secret = out.parent / f"{out.name}.key"
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_bytes(bytes.fromhex(key))
    words = [
        "site",
        "deid",
        "run",
        source,
        out,
        "--keep-names",
        "--profile",
        profile,
        "--json",
        "--key",
        secret,
    ]
    began = time.perf_counter()
    command = [str(word) for word in fedai(*words, "--processes", processes, *more)]
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread(), check=False)
    told = json.loads(done.stdout or "{}")
    if not told.get("ok"):
        raise RuntimeError(f"fedai site deid run: {told.get('error') or done.stderr[-500:]}")
    return {**told.get("data", told), "seconds": time.perf_counter() - began}
