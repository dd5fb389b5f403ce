"""Measures one tool: each row of the table over the corpus, the probes, the real files and the slices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.deidentification import leaks, linkage, ours, peers, real_files, speed, table, validity
from benchmarks.deidentification.corpus import quiet, write_corpus
from benchmarks.deidentification.peers import KEY, OTHER_KEY, Peer
from benchmarks.deidentification.standard import OPTIONS

Clean = Callable[[Path, Path, str, str], dict[str, Any]]
"""(folder in, folder out, key as hex, profile) -> counts; mirrors names."""


@dataclass(frozen=True)
class Material:
    """What all tools are given. `program`: dciodvfy, where it could be had."""

    folder: Path
    key: dict[str, Any]
    program: Path | None
    rounds: int

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus" / "in"


@dataclass(frozen=True)
class Tool:
    """A tool to measure: how it cleans a folder, what it does with dates, where its speed is measured.

    `shifting`: the profile under which intervals are to be kept; `options`: whether it has Annex E's options.
    """

    name: str
    clean: Clean
    python: Path
    driver: str
    dates: str
    shifting: str = ""
    options: bool = False
    note: str = field(default="", compare=False)


def prepare(folder: Path, environments: Path, files: int, slices: int, rounds: int, seed: int) -> Material:
    """Write corpus, probes, real files and slices, once for all tools."""
    quiet()
    real_files.collect(folder / "real" / "in")
    small = [path for path in sorted((folder / "real" / "in").iterdir()) if path.stat().st_size < 100_000]
    sources = [path for path in small if _can_carry(path)]
    key = write_corpus(folder / "corpus", files, seed, sources)
    table.probes(folder / "probes")
    speed.write_slices(folder / "slices", slices)
    return Material(folder, key, validity.binary(peers.validator(environments)), rounds)


def _can_carry(path: Path) -> bool:
    """Whether identifiers can be planted in a real file: read and written again without an error."""
    from benchmarks.deidentification.places import encode

    dataset = table.read(path)
    try:
        return dataset is not None and "SOPClassUID" in dataset and bool(encode(dataset))
    except leaks.FAULTS:
        return False


def peer_tool(peer: Peer, environments: Path) -> Tool:
    python = peer.interpreter(environments)

    def clean(source: Path, target: Path, key: str, profile: str) -> dict[str, Any]:
        return peers.run(python, peer.name, "clean", source, target, key, profile)

    return Tool(peer.name, clean, python, peer.name, peer.dates)


def our_tool(python: Path) -> Tool:
    return Tool("fedai", ours.clean_folder, python, "fedai", "removed", "basic+modified-dates", options=True)


def measure(tool: Tool, material: Material) -> dict[str, Any]:
    """All rows for one tool, as one JSON object."""
    out = material.folder / "out" / tool.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    told: dict[str, Any] = {"tool": tool.name, "dates": tool.dates}
    for name, part in (
        ("corpus", _corpus), ("table", _table), ("real", _real), ("links", _links), ("speed", _speed),
    ):  # fmt: skip
        told[name] = part(tool, material, out)
        (out / "told.json").write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8")
    return told


def _corpus(tool: Tool, material: Material, out: Path) -> dict[str, Any]:
    ran = tool.clean(material.corpus, out / "corpus", KEY, "basic")
    removed = tool.dates == "removed"
    found = leaks.search(
        material.key, material.corpus, out / "corpus", times=removed, dates=tool.dates != "kept"
    )
    return {
        **found.as_json(),
        "files": len(material.key["files"]),
        "seconds": ran["seconds"],
        "ran": _short(ran),
    }


def _short(ran: dict[str, Any]) -> dict[str, Any]:
    refused = ran.get("refused") or {}
    kinds: dict[str, int] = {}
    for why in refused.values():
        kinds[why[:60]] = kinds.get(why[:60], 0) + 1
    return {"refused": kinds or ran.get("quarantined", {})}


def _table(tool: Tool, material: Material, out: Path) -> dict[str, Any]:
    """Percent of rows handled as the standard says, per option; top level and nested; what was wrong."""
    told: dict[str, Any] = {}
    for option in (None, *OPTIONS) if tool.options else (None,):
        profile = "table" if not tool.options else f"basic+{option}" if option else "basic"
        place = out / f"table-{option or 'basic'}"
        peers.run(tool.python, tool.driver, "clean", material.folder / "probes", place, KEY, profile)
        told[option or "basic"] = [_judged(material, place, option, name) for name in ("top", "nested")]
    return told


def _judged(material: Material, place: Path, option: str | None, name: str) -> dict[str, Any]:
    after = table.read(place / f"{name}.dcm") if (place / f"{name}.dcm").is_file() else None
    before = table.read(material.folder / "probes" / f"{name}.dcm")
    if after is None or before is None:
        return {"percent": None, "wrong": ["not written"]}
    verdicts = table.judge(before, after, option, name == "nested")
    wrong = [verdict for verdict in verdicts if not verdict.right]
    percent = 100 * (1 - len(wrong) / len(verdicts))
    return {"percent": percent, "wrong": [f"{one.tag} {one.code}: {one.found}" for one in wrong]}


def _real(tool: Tool, material: Material, out: Path) -> dict[str, Any]:
    ran = tool.clean(material.folder / "real" / "in", out / "real", KEY, "basic")
    return {
        **real_files.judge(material.folder / "real" / "in", out / "real", material.program),
        "ran": _short(ran),
    }


def _links(tool: Tool, material: Material, out: Path) -> dict[str, Any]:
    """Links within the run over the corpus; again in two batches in two processes, and with another key."""
    key, paths = material.key, list(material.key["files"])
    before, after = (linkage.read_all(place, paths) for place in (material.corpus, out / "corpus"))
    told: dict[str, Any] = {
        "patients": linkage.patients(key, before, after),
        "uids_percent": linkage.uids(before, after),
        "references": linkage.references(key, after),
    }
    some = [path for path in paths if path in after][:60]
    halves = [_again(tool, material, out, f"batch-{part}", some[part::2], KEY) for part in (0, 1)]
    told["batches_agree"] = all(linkage.agree(half, after) for half in halves)
    other = _again(tool, material, out, "other-key", some, OTHER_KEY)
    told["in_common_with_other_key"] = linkage.in_common(other, {path: after[path] for path in some})
    dated = _again(tool, material, out, "dates", some, KEY, tool.shifting) if tool.shifting else after
    told["intervals"] = linkage.intervals(before, dated, key)
    return told


def _again(
    tool: Tool, material: Material, out: Path, name: str, paths: list[str], key: str, profile: str = "basic"
) -> dict[str, linkage.Linked]:
    """Clean some files of the corpus in a process of their own."""
    for path in paths:
        place = out / f"{name}-in" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(material.corpus / path, place)
    tool.clean(out / f"{name}-in", out / name, key, profile)
    return linkage.read_all(out / name, paths)


def _speed(tool: Tool, material: Material, out: Path) -> dict[str, Any]:
    told = peers.run(tool.python, tool.driver, "speed", material.folder / "slices", material.rounds)
    return speed.ratio(told)
