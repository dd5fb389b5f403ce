"""Coverage-guided fuzzing of parse, clean and write: whatever the bytes, a clean file or Quarantine.

    pip install atheris
    nice -n 19 python tests/fuzz/fuzz_deidentify.py FOUND -max_total_time=600

FOUND is a folder: seeds are put there and new inputs kept. Anything else that is raised, and whatever takes
longer than SECONDS, is put into FOUND/cases, one file for each place in the code; the run goes on. Copy those
to tests/fuzz/cases, where test_fuzz_cases.py runs them from then on. libFuzzer's options may follow.
"""

from __future__ import annotations

import sys
import time
import traceback
from hashlib import sha256
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["pydicom", "fedai_site"]):
    from fedai_site.deidentify import Deidentifier, write
    from fedai_site.deidentify.reading import parse

sys.path.append(str(Path(__file__).parents[1] / "sites"))

from fedai_site.quarantine import Quarantine
from mutations import MUTATIONS

SECONDS = 5.0
LARGEST_SEED = 12_000
ENGINE = Deidentifier(bytes(range(32)))


def clean(data: bytes) -> None:
    """What a site does with a file's bytes; what was written must be readable again."""
    try:
        parse(write(ENGINE.clean(parse(data))))
    except Quarantine:
        return


class Target:
    """Calls `clean` and keeps each input that it doesn't survive, one for each place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()

    def __call__(self, data: bytes) -> None:
        began, place = time.monotonic(), ""
        try:
            clean(data)
        except Exception as error:  # noqa: BLE001 (whatever it is, it's what is looked for)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__}-{Path(frame.filename).stem}-{frame.lineno}"
        if time.monotonic() - began > SECONDS:
            place = f"slow-{len(data) // 1000}"
        if place and place not in self.seen:
            self.seen.add(place)
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{place}-{sha256(data).hexdigest()[:8]}.dcm").write_bytes(data)


def mutate(data: bytes, largest: int, seed: int) -> bytes:
    """Half of the time libFuzzer's own mutation, half of the time one that knows what DICOM looks like."""
    random = Random(seed)
    if random.random() < 0.5 or len(data) < 300:
        return bytes(atheris.Mutate(data, largest))
    return random.choice(MUTATIONS)(data, random)[:largest]


def plant_seeds(folder: Path) -> None:
    """pydicom's own small files, as they are."""
    import pydicom

    folder.mkdir(parents=True, exist_ok=True)
    for path in (Path(pydicom.__file__).parent / "data").rglob("*.dcm"):
        if path.stat().st_size <= LARGEST_SEED:
            (folder / path.name).write_bytes(path.read_bytes())


def main(words: list[str]) -> None:
    found = Path(words[1])
    plant_seeds(found / "inputs")
    options = [
        words[0],
        str(found / "inputs"),
        "-max_len=16000",
        "-timeout=60",
        "-rss_limit_mb=4000",
        *words[2:],
    ]
    atheris.Setup(options, Target(found / "cases"), custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
