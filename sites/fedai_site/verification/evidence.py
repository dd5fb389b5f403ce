"""Whether `evidence.jsonl` speaks of exactly the files that are there, byte for byte."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedai_site.verification.findings import Finding, Severity
from fedai_site.verification.scanning import Context, scan_text

EVIDENCE = "evidence.jsonl"
NEEDED = (
    "path", "input_sha256", "output_sha256", "profile", "options", "table_edition", "release", "actions",
    "pixels",
    "face", "key_id",
)  # fmt: skip
SHA256 = re.compile(r"[0-9a-f]{64}")
LONGEST_LINE = 4 * 2**20


def check_evidence(
    folder: Path, hashes: Mapping[str, str], context: Context, key_id: str = ""
) -> Iterator[Finding]:
    """Findings about the evidence. `hashes` is the SHA-256 of each object's bytes by its path in the
    folder, `key_id` the key that all must be of ('': that of most).
    """
    path = folder / EVIDENCE
    if not path.is_file():
        yield _violation("there is no evidence file")
        return
    lines: Counter[str] = Counter()
    keys: dict[str, str] = {}
    with path.open("rb") as file:
        for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), 1):
            entry = _entry(raw)
            if entry is None:
                yield _violation("a line that is no JSON object", f"line {number}")
                continue
            lines[str(entry.get("path"))] += 1
            keys[str(entry.get("path"))] = str(entry.get("key_id"))
            yield from _check(entry, hashes, number)
            yield from _scan(entry, context, f"line {number}")
    for name in sorted(set(hashes) - set(lines)):
        yield Finding(Severity.VIOLATION, "evidence", "no line of evidence", name)
    for name in sorted(name for name, count in lines.items() if count > 1 and name in hashes):
        yield Finding(Severity.VIOLATION, "evidence", "more than one line of evidence", name)

    yield from _of_other_keys({name: key for name, key in keys.items() if name in hashes}, key_id)


def _of_other_keys(keys: Mapping[str, str], key_id: str) -> Iterator[Finding]:
    """Files whose names come from another key: the same patients may be in the folder under other names."""
    expected = key_id or (Counter(sorted(keys.values())).most_common(1) or [("", 0)])[0][0]
    for name in sorted(name for name, key in keys.items() if key != expected):
        yield Finding(Severity.VIOLATION, "evidence", f"its evidence is not of the key {expected}", name)


def _violation(message: str, place: str = "") -> Finding:
    return Finding(Severity.VIOLATION, "evidence", message, EVIDENCE, place)


def _entry(raw: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _check(entry: dict[str, Any], hashes: Mapping[str, str], number: int) -> Iterator[Finding]:
    name, place = str(entry.get("path")), f"line {number}"
    if missing := [key for key in NEEDED if key not in entry]:
        yield _violation(f"says nothing about {', '.join(missing)}", place)
    if name not in hashes:
        yield _violation("speaks of a file that isn't there", place)
    elif entry.get("output_sha256") != hashes[name]:
        yield Finding(Severity.VIOLATION, "evidence", "the bytes aren't those of its evidence", name)
    if not SHA256.fullmatch(str(entry.get("input_sha256"))):
        yield _violation("holds no SHA-256 of the input", place)
    if entry.get("input_sha256") == entry.get("output_sha256"):
        yield _violation("output and input are the same bytes", place)


def _scan(entry: dict[str, Any], context: Context, place: str) -> Iterator[Finding]:
    """Known values and forms of identifiers in the line, outside of hashes."""
    plain = {key: value for key, value in entry.items() if not SHA256.fullmatch(str(value))}
    yield from scan_text(json.dumps(plain, ensure_ascii=False), context, place)
