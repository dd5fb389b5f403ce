"""Folders of de-identified objects for the tests of the second reader, and ways to spoil them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from dicom_files import SECRET, radiograph
from fedai_site.deidentify import Deidentifier, write
from fedai_site.verification import Findings, verify
from fedai_site.verification.elements import LONG
from fedai_site.verification.part10 import take_apart
from pydicom.dataset import Dataset

KNOWN = (
    "이름,name,patient_id,birth_date,phone,rrn,accession,address,sex\n"
    "홍길동,Hong^Gildong,MRN-448211,1955-12-31,010-2345-6789,551231-1234567,"
    "A2024-00917,서울시 종로구 세종대로 209,M\n"
    "Müller,Müller^Jörg^Karl,0077310052,1948-03-05,+49 30 1234567,,ACC5512009,Hauptstraße 5 Köln,M\n"
)


def folder_of(out: Path, images: Iterable[Dataset]) -> Path:
    """A folder with the objects as the engine writes them, and their evidence."""
    out.mkdir(parents=True, exist_ok=True)
    cleaner = Deidentifier(SECRET)
    for number, image in enumerate(images, 1):
        image.BurnedInAnnotation = "NO"
        cleaned = cleaner.clean(image)
        cleaned.dataset.BurnedInAnnotation = "NO"
        (out / f"{number:04}.dcm").write_bytes(write(cleaned))
    return with_evidence(out)


def with_evidence(out: Path) -> Path:
    """The folder with evidence of its files as they are now."""
    lines = [json.dumps(evidence_of(path, out)) for path in sorted(out.rglob("*.dcm"))]
    (out / "evidence.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return out


def evidence_of(path: Path, out: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {
        "path": path.relative_to(out).as_posix(),
        "input_sha256": sha256(b"in" + data).hexdigest(),
        "output_sha256": sha256(data).hexdigest(),
        "profile": "basic",
        "options": [],
        "table_edition": "2026d",
        "release": "0",
        "actions": {"keep": 12},
        "pixels": None,
        "face": None,
        "key_id": "0123456789abcdef",
    }


def one_object(out: Path, **more: Any) -> Path:
    """A folder with one clean radiograph; the path of its file."""
    return folder_of(out, [radiograph(**more)]) / "0001.dcm"


def known_list(folder: Path, text: str = KNOWN, encoding: str = "utf-8") -> Path:
    path = folder / "patients.csv"
    path.write_bytes(text.encode(encoding))
    return path


def element(tag: int, vr: str, value: bytes) -> bytes:
    """One attribute in explicit VR little endian."""
    value += b"" if len(value) % 2 == 0 else b" " if vr not in ("UI", "OB", "UN") else b"\0"
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr.encode() in LONG:
        return head + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def sequence(tag: int, *items: bytes) -> bytes:
    """A sequence of items of defined length."""
    return element(tag, "SQ", b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(i)) + i for i in items))


def put(path: Path, tag: int, vr: str, value: bytes) -> None:
    """Set an attribute of the file's data set, at its place in the order of tags."""
    put_bytes(path, tag, element(tag, vr, value))


def put_bytes(path: Path, tag: int, attribute: bytes) -> None:
    """Put the bytes of an attribute (or of none) where `tag` belongs; it may be there already."""
    data = path.read_bytes()
    parts = take_apart(memoryview(data))
    top = [e for e in parts.elements if e.depth == 0]
    heads = {e.tag: e.start - (12 if e.vr.encode() in LONG else 8) for e in top}
    after = [heads[e.tag] for e in top if e.tag > tag]
    end = after[0] if after else len(data)
    begin = heads.get(tag, end)
    path.write_bytes(data[:begin] + attribute + data[end:])
    with_evidence(path.parent)


def change(path: Path, how: Callable[[bytes], bytes]) -> None:
    """Rewrite the bytes of a file, and its evidence."""
    path.write_bytes(how(path.read_bytes()))
    with_evidence(path.parent)


def read(path: Path, known: Path | None = None) -> Findings:
    """The second reader's findings on the file's folder."""
    return verify(path.parent if path.is_file() else path, known)


def told(findings: Findings) -> set[tuple[str, str, str]]:
    """(severity, check, place) of all findings."""
    return {(str(f.severity), f.check, f.place) for f in findings.findings}
