"""Starting, pausing and stopping a run: the run database first, then the SuperLink."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError, FederationError
from fedai.study import Study
from fedai.wire import MOST_REFERENCES
from fedai_server.bundle import release_bundle
from fedai_server.control import Control
from fedai_server.home import ServerHome
from fedai_server.leaving_out import check_sites, facts_of
from fedai_server.ledger import note
from fedai_server.runs import OVER, Run, RunDatabase

REFERENCE = re.compile(r"([a-z][a-z0-9-]{0,40})=(.+)")
OWN_NAMES = ("federated",)
OVERVIEW = "overview"  # a fact of a run that trains nothing


def launch(
    home: ServerHome,
    study: Study,
    references: Sequence[str] = (),
    without: Sequence[str] = (),
    *,
    overview: bool = False,
) -> str:
    """Start a run and give its name; `without`: sites that don't train in it and judge it only; `overview`:
    it ends once sites have told what they have. Raises ConfigError for bad references, for sites nobody
    admitted or the study doesn't name, FederationError.
    """
    check_sites(without, study)
    checkpoints = _references(references)
    runs = RunDatabase(home.runs_database)
    with Control(home) as control:
        admitted = {site.name for site in control.list_sites()}
        unknown = sorted(set(study.sites) - admitted)
        if unknown:
            raise ConfigError(
                f"the study names sites that are not admitted: {', '.join(unknown)}",
                hint=f"fedai server admit {home.folder} SITE PUBLIC_KEY_FILE",
            )
        bundle = release_bundle()
        facts = [*facts_of(without), *([(OVERVIEW, dict[str, Any]())] if overview else [])]
        name = runs.plan(study, lambda name: note(home, "start", run=name, study=study.sha256), facts)
        try:
            put_references(home.folder / "registry" / name / "references", checkpoints)
            runs.attach(name, control.start_run(bundle, study.canonical()))
        except (FederationError, OSError) as error:
            runs.move(name, "failed", str(error))
            raise
    return name


def halt(home: ServerHome, name: str) -> bool:
    """Stop a run; False where it had ended before."""
    runs = RunDatabase(home.runs_database)
    run = runs.get(name)
    note(home, "stop", **named(run))
    stopped = runs.move(name, "stopped", "by the coordinator")
    if run.flower_id and run.state not in OVER:
        with Control(home) as control:
            control.stop_run(run.flower_id)
    return stopped


def named(run: Run) -> dict[str, str]:
    """How the server's ledger names a run: by name, and by Flower's number where it has one."""
    return {"run": run.name, **({"number": str(run.flower_id)} if run.flower_id else {})}


def references_of(run: Path) -> list[str]:
    """An ended run's references, in the form that `launch` takes."""
    return [f"{path.stem}={path}" for path in sorted((run / "references").glob("*.safetensors"))]


def _references(texts: Sequence[str]) -> list[tuple[str, Path]]:
    found = [_reference(text) for text in texts]
    names = [name for name, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if len(found) > MOST_REFERENCES:
        raise ConfigError(
            f"{len(found)} references; sites score at most {MOST_REFERENCES}", hint="leave some out"
        )
    if twice:
        raise ConfigError(f"--reference: named twice: {', '.join(twice)}", hint="give each its own name")
    return found


def _reference(text: str) -> tuple[str, Path]:
    match = REFERENCE.fullmatch(text)
    if not match or match[1] in OWN_NAMES:
        raise ConfigError(
            f"--reference {text}: write NAME=weights.safetensors",
            hint="for example centralised=w.safetensors",
        )
    path = Path(match[2])
    if not path.is_file():
        raise ConfigError(f"--reference {match[1]}: there is no file {path}", hint="check the path")
    return match[1], path


def put_references(folder: Path, checkpoints: list[tuple[str, Path]]) -> None:
    """Copy references, and the manifests beside them, to where a run looks for them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in checkpoints:
        shutil.copyfile(path, folder / f"{name}.safetensors")
        if _is_of(manifest := path.parent / "manifest.json", path):
            shutil.copyfile(manifest, folder / f"{name}.manifest.json")


def _is_of(manifest: Path, weights: Path) -> bool:
    """Whether there is a manifest of fedai's that speaks of these very weights."""
    try:
        told = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return bool(told == hashlib.sha256(weights.read_bytes()).hexdigest())
