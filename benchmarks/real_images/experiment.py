"""Set up, run and judge: the same commands as a consortium types."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.federation import Federation
from benchmarks.real_images.images import read_images, share_out, write_export
from fedai.compare import compare
from fedai.errors import ConfigError
from fedai.record import find_run, read_judgement, read_record
from fedai.results import Comparison
from fedai.study import read_study

STUDY = Path(__file__).parents[2] / "configs" / "studies" / "mednist.yaml"


@dataclass(frozen=True)
class Outcome:
    """`exported`: images written, by site. `record`: what the run database knows."""

    exported: dict[str, int]
    record: dict[str, Any]
    comparison: Comparison
    seconds: float


def run(folder: Path, source: Path, per_class: int | None) -> Outcome:
    """The whole way in `folder`. Raises FedaiError."""
    started = time.monotonic()
    study = read_study(STUDY)
    images = read_images(source, per_class)
    if set(images.classes) != set(study.task.classes):
        raise ConfigError(
            f"{source} has the classes {', '.join(images.classes)}", hint=f"{STUDY.name} has others"
        )
    parts = share_out(images.labels, len(study.sites))
    exports = {
        site: write_export(folder / "exports" / site, site, images, part)
        for site, part in zip(study.sites, parts, strict=True)
    }
    _tell(f"{len(images.labels)} images written as DICOM", started)
    federation = Federation(folder, study.sites)
    federation.set_up(exports, [STUDY])
    _tell("server and sites are set up", started)
    with federation.up():
        name = federation.run(STUDY)
    _tell(f"{name} finished", started)
    place = find_run(name, federation.server)
    exported = {site: len(part) for site, part in zip(study.sites, parts, strict=True)}
    comparison = compare(read_judgement(place))
    return Outcome(exported, read_record(place), comparison, time.monotonic() - started)


def _tell(text: str, started: float) -> None:
    print(f"{time.monotonic() - started:5.0f} s  {text}", file=sys.stderr, flush=True)
