"""A run as it rests on disk: record.json (what happened) and judgement.json (what the models scored)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedai.errors import ConfigError
from fedai.judgement import Judgement
from fedai.outline_judgement import OutlineJudgement


def find_run(run: str, home: Path) -> Path:
    """The folder of a run, given as a path or as a name in a server's home. Raises ConfigError."""
    for folder in (Path(run), home / "registry" / run):
        if (folder / "record.json").is_file():
            return folder
        if folder.is_dir() and folder.parent == home / "registry":
            raise ConfigError(f"{run} hasn't ended", hint=f"fedai run watch {run} follows it to its end")
    raise ConfigError(
        f"there is no ended run {run!r} here or in {home}",
        hint="give the run's folder, or --home with the server's home",
    )


def read_record(folder: Path) -> dict[str, Any]:
    """record.json. Raises ConfigError where it isn't readable."""
    return _read(folder / "record.json")


def check_overlap(name: str, record: dict[str, Any]) -> None:
    """Raise ConfigError, with every reason, where a model of the run may have been trained on test patients.

    Of a reference without a manifest nothing is known, and nothing said.
    """
    problems = [
        f"{name}: {cohort['overlapping_patients']} test patients of {site} are training patients too"
        for site, cohort in record.get("cohorts", {}).items()
        if cohort.get("overlapping_patients")
    ]
    plan = _split_plan(record.get("study", {}))
    for reference, facts in record.get("references", {}).items():
        if facts.get("split_plan") and facts["split_plan"] != plan:
            problems.append(
                f"{name}: {reference} was trained on another split ({facts['split_plan']}, not {plan}): its "
                "training patients may be among the test patients"
            )
    if problems:
        raise ConfigError(
            "these models can't be compared:\n  " + "\n  ".join(problems),
            hint="judge models only on patients that trained none of them",
        )


def margin_of(records: Mapping[str, dict[str, Any]]) -> float | None:
    """The margin of non-inferiority that the runs' studies fixed. Raises ConfigError where they differ."""
    margins = {record.get("study", {}).get("judgement", {}).get("margin") for record in records.values()}
    if len(margins) > 1:
        raise ConfigError("the studies fixed different margins of non-inferiority", hint="give --margin")
    return next(iter(margins), None)


def grid_of(record: Mapping[str, Any]) -> list[int]:
    """Rows and columns that a run's images and masks were brought to; empty where the record doesn't say."""
    return [int(side) for side in record.get("study", {}).get("preprocessing", {}).get("image_size", ())]


def _split_plan(study: dict[str, Any]) -> str:
    split = study.get("split", {})
    return f"{study.get('name')}/{split.get('seed')}/{split.get('validation', 0):g}/{split.get('test', 0):g}"


def answered_in(closed: Mapping[str, Any]) -> list[str]:
    """Who answered in a round; where rounds wait for nobody, with how many rounds an update was behind."""
    stale = closed.get("staleness", {})
    return [
        f"{site} ({stale[site]} behind)" if stale.get(site) else site for site in closed.get("answered", [])
    ]


def final_of(record: Mapping[str, Any]) -> tuple[int, str]:
    """Number and checkpoint (SHA-256) of the round whose model is the run's: the chosen one, else the last;
    (0, "") where no round closed.
    """
    last = (record.get("rounds") or [{}])[-1]
    chosen = record.get("chosen") or last
    number = chosen.get("round", chosen.get("number", 0))
    return int(number), str(chosen.get("checkpoint") or "")


def final_words(record: Mapping[str, Any]) -> str:
    """Which round's model is the run's, and by which rule; nothing where no round closed."""
    number, chosen = final_of(record)[0], record.get("chosen") or {}
    training, rounds = record.get("study", {}).get("training", {}), len(record.get("rounds") or [])
    wants_best = training.get("checkpoint", {}).get("choose") == "best"
    last = (
        "the last: the run ended before there was a choice" if wants_best else "the last, as the study says"
    )
    early = f"; training ended early, after {rounds} of {training['rounds']}" if is_early(record) else ""
    return f"round {number}: {chosen.get('why') or last}{early}" if number else ""


def is_early(record: Mapping[str, Any]) -> bool:
    """Whether the study's rule ended the training before its last round."""
    training = record.get("study", {}).get("training", {})
    rounds = len(record.get("rounds") or [])
    finished = record.get("state") == "finished"
    return finished and bool(training.get("early_stopping")) and rounds < int(training.get("rounds", 0))


def read_judgement(folder: Path) -> Judgement:
    """judgement.json. Raises ConfigError where the run didn't get that far."""
    if not (folder / "judgement.json").is_file():
        record = read_record(folder)
        reason = f": {record['reason']}" if record.get("reason") else ""
        raise ConfigError(
            f"the run {record.get('run', folder.name)} has no judgement, it {record.get('state')}{reason}",
            hint="only a finished run can be compared",
        )
    content = _read(folder / "judgement.json")
    if content.get("task") == "segmentation":
        raise ConfigError(
            f"{folder.name} is a run of a segmentation: this is for classifications alone",
            hint="fedai compare RUN, fedai report RUN",
        )
    return Judgement.from_json(content)


def read_outlines(folder: Path) -> OutlineJudgement | None:
    """judgement.json of a segmentation's run; None for a run of another task, or without a judgement."""
    path = folder / "judgement.json"
    content = _read(path) if path.is_file() else {}
    return OutlineJudgement.from_json(content) if content.get("task") == "segmentation" else None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fault = "" if isinstance(content, dict) else "it holds no keys and values"
    except OSError as error:
        content, fault = {}, error.strerror or "no such file"
    except (ValueError, RecursionError):
        content, fault = {}, "it is not JSON, or cut off"
    if fault:
        raise ConfigError(f"can't read {path}: {fault}", hint="is this a run's folder?")
    return dict(content)
