"""An ended run as an RO-Crate (RO-Crate 1.1, profile Process Run Crate 0.5): a ZIP file for a repository or
an archive, that says of each file what it is, its size and its SHA-256, and of the run who did what with
which software.

It holds what the run's folder holds, no case and no patient; the weights only where they are asked for.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fedai import __version__, outline_tables
from fedai.checklists import FOR_AUTHORS
from fedai.compare import compare
from fedai.long_table import as_csv
from fedai.model_card import card_of, markdown
from fedai.outline_report import render_outlines
from fedai.outline_results import compare_outlines
from fedai.record import margin_of, read_judgement, read_outlines, read_record
from fedai.report import render

Json = dict[str, Any]
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = [
    f"{SPECIFICATION}/context",
    {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"},
]
METADATA = "ro-crate-metadata.json"
MEDIA = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".html": "text/html",
    ".md": "text/markdown",
    ".safetensors": "application/octet-stream",
}
HOMES = {
    "flwr": "https://flower.ai",
    "monai": "https://monai.io",
    "pydicom": "https://pydicom.github.io",
    "torch": "https://pytorch.org",
}
ENDED_WELL = "finished"
PIECE = 1 << 20


@dataclass(frozen=True)
class Part:
    """A file of the crate: what it is, and where its bytes are."""

    name: str
    description: str
    content: bytes | Path

    def pieces(self) -> Iterator[bytes]:
        if isinstance(self.content, bytes):
            yield self.content
            return
        with self.content.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece


def write_crate(run: Path, out: Path, *, weights: bool = False) -> list[Json]:
    """Write the crate of the run in the folder `run`; gives its files' entities. `weights`: the checkpoints
    too, and not their manifests alone. Raises ConfigError where the folder is none of a run.
    """
    record = read_record(run)
    partial = out.with_name(out.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as crate:
            entities = [_put(crate, part) for part in parts_of(run, record, weights=weights)]
            text = json.dumps(metadata(record, entities), indent=1, ensure_ascii=False)
            crate.writestr(METADATA, text)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return entities


def _put(crate: zipfile.ZipFile, part: Part) -> Json:
    """Write a file; its entity says what was written."""
    digest, size = hashlib.sha256(), 0
    with crate.open(part.name, "w", force_zip64=True) as file:
        for piece in part.pieces():
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return {
        "@id": part.name,
        "@type": "File",
        "name": part.name,
        "description": part.description,
        "encodingFormat": MEDIA[Path(part.name).suffix],
        "contentSize": str(size),
        "sha256": digest.hexdigest(),
    }


def parts_of(run: Path, record: Json, *, weights: bool) -> Iterator[Part]:
    """What the run's folder holds, and what is made of that alone."""
    yield Part("record.json", "What happened in the run", run / "record.json")
    study = json.dumps(record["study"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    yield Part("study.json", "The study as the sites approved it: its SHA-256 is theirs", study.encode())
    if (run / "judgement.json").is_file():
        yield from _judged(run, record)
    for path in sorted([*run.glob("*/manifest.json"), *run.glob("references/*.manifest.json")]):
        yield Part(_place(run, path), "Where a checkpoint comes from, and its SHA-256", path)
    if weights:
        for path in sorted([*run.glob("*/weights.safetensors"), *run.glob("references/*.safetensors")]):
            yield Part(_place(run, path), "A checkpoint: the network's tensors by name", path)


def _place(run: Path, path: Path) -> str:
    return path.relative_to(run).as_posix()


def _judged(run: Path, record: Json) -> Iterator[Part]:
    report, numbers = _report(run, record)
    yield Part("judgement.json", "What the models scored, as counts and sums", run / "judgement.json")
    yield Part("report.html", "The report", report.encode())
    yield Part("numbers.csv", "Every number of the report, one per row", numbers.encode())
    if sorted(run.glob("round-*/weights.safetensors")):
        card = card_of(run, "federated")
        facts = json.dumps(card, indent=1, ensure_ascii=False)
        yield Part("model-card.md", "The federated model's card", markdown(card).encode())
        yield Part("model-card.json", "The same as JSON", facts.encode())


def _report(run: Path, record: Json) -> tuple[str, str]:
    """As HTML, and its numbers as a long table."""
    outlines = read_outlines(run)
    if outlines is not None:
        outlined = compare_outlines(outlines)
        return render_outlines(outlined, record), outline_tables.as_csv(outlined)
    judgement = read_judgement(run)
    comparison = compare(judgement, margin=margin_of({str(record["run"]): record}))
    return render(record, comparison, judgement), as_csv(comparison)


def metadata(record: Json, files: list[Json]) -> Json:
    """ro-crate-metadata.json for a run's record and the entities of the crate's files."""
    software, sites = _software(record), _sites(record)
    action = _action(record, files, software, sites)
    described = {"@id": METADATA, "@type": "CreativeWork", "about": {"@id": "./"}}
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    return {
        "@context": CONTEXT,
        "@graph": [
            {**described, "conformsTo": {"@id": SPECIFICATION}},
            _root(record, files, action),
            profile,
            {"@id": "#licence", "@type": "CreativeWork", "name": f"Licence: {FOR_AUTHORS}"},
            action,
            *sites,
            *software,
            *files,
        ],
    }


def _root(record: Json, files: list[Json], action: Json) -> Json:
    study = record["study"]
    purpose = study.get("purpose", "")
    statement = purpose.get("statement", "") if isinstance(purpose, Mapping) else purpose
    return {
        "@id": "./",
        "@type": "Dataset",
        "conformsTo": {"@id": PROFILE},
        "name": f"Federated training run {record['run']}",
        "description": f"{statement} A run of fedai: no image, and no row of a patient, is in it.".strip(),
        "identifier": f"{record['run']} {record['study_hash']}",
        "keywords": ", ".join(_keywords(study["task"])),
        "datePublished": datetime.now(UTC).date().isoformat(),
        "license": {"@id": "#licence"},
        "hasPart": _links(files),
        "mentions": {"@id": action["@id"]},
    }


def _keywords(task: Json) -> list[str]:
    """The task, and what it tells apart or outlines."""
    kind = task.get("kind", "classification")
    return ["federated learning", kind, *task["structures" if kind == "segmentation" else "classes"]]


def _action(record: Json, files: list[Json], software: list[Json], sites: list[Json]) -> Json:
    """The run itself. Who did it are the sites; the server told them the study."""
    well = record["state"] == ENDED_WELL
    status = "CompletedActionStatus" if well else "FailedActionStatus"
    inputs = [file for file in files if file["@id"] == "study.json" or file["@id"].startswith("references/")]
    study = record["study"]
    return {
        "@id": f"#{record['run']}",
        "@type": "CreateAction",
        "name": f"The run {record['run']} of the study {study['name']}",
        "description": f"{len(record.get('rounds', []))} rounds at {len(sites)} sites; {record['state']}",
        **_times(record),
        "instrument": _links(part for part in software if part["name"] == "fedai"),
        "agent": _links(sites),
        "object": _links(inputs),
        "result": _links(file for file in files if file not in inputs),
        "actionStatus": {"@id": f"http://schema.org/{status}"},
        **({} if well else {"error": record.get("reason") or record["state"]}),
    }


def _times(record: Json) -> Json:
    """ISO 8601; nothing where the record has no such time."""
    try:
        start = datetime.fromisoformat(str(record.get("started")))
    except ValueError:
        return {}
    end = start + timedelta(seconds=float(record.get("seconds") or 0))
    return {"startTime": start.isoformat(), "endTime": end.isoformat()}


def _sites(record: Json) -> list[Json]:
    found = [fact["answered"] for fact in record.get("rounds", [])] + [list(record.get("cohorts", {}))]
    names = sorted({name for names in found for name in names})
    return [{"@id": f"#site-{name}", "@type": "Organization", "name": name} for name in names]


def _software(record: Json) -> list[Json]:
    """Every version that a site said it ran, once; fedai's own that made the crate where no site said one."""
    told = {pair for versions in record.get("versions", {}).values() for pair in versions.items()}
    told |= set() if any(name == "fedai" for name, _ in told) else {("fedai", __version__)}
    return [
        {
            "@id": f"#{name}-{version}",
            "@type": "SoftwareApplication",
            "name": name,
            "softwareVersion": str(version),
            **({"url": HOMES[name]} if name in HOMES else {}),
        }
        for name, version in sorted(told)
    ]


def _links(entities: Any) -> list[Json]:
    return [{"@id": entity["@id"]} for entity in entities]
