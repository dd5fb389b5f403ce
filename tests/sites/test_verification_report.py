from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_files import radiograph
from fedai_site.verification import summary, summary_lines, verify, write_report
from fedai_site.verification.inspection import korea, safe_harbor
from fedai_site.verification.pictures import png
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian
from verification_files import folder_of, known_list, one_object, put, read, with_evidence

SECRETS = ("Hong", "Gildong", "홍길동", "448211", "19551231", "1955-12-31", "2345", "Seoul")


def spoiled(tmp_path: Path) -> Path:
    """A folder in which one file leaks."""
    out = folder_of(tmp_path / "out", [radiograph(number, rows=40, columns=30) for number in range(5)])
    put(out / "0002.dcm", 0x00204000, "LT", b"Hong Gildong 448211 born 1955-12-31, Seoul Hospital")
    return out


def test_the_report_never_shows_a_found_value(tmp_path: Path) -> None:
    found = verify(spoiled(tmp_path), known_list(tmp_path))
    assert not found.ok
    html, data = write_report(found, tmp_path / "report")
    terminal = "\n".join(summary_lines(found)) + json.dumps(summary(found))
    for text in (html.read_text(), data.read_text(), terminal):
        assert not [secret for secret in SECRETS if secret in re.sub(r"base64,[^\"]*", "", text)]
        assert "(0020,4000)" in text
        assert "birth_date" in text


def test_the_report_needs_nothing_from_outside_and_prints_on_a4(tmp_path: Path) -> None:
    html, _ = write_report(verify(spoiled(tmp_path)), tmp_path / "report")
    text = html.read_text()
    assert not re.search(r"(?:src|href)=[\"'](?!data:)|url\(|@import|<script|<link", text)
    assert "size: A4" in text
    for word in ("Safe Harbor", "Self-inspection", "Sign-off", "What this reading can't know"):
        assert word in text


def test_the_eighteen_identifiers_and_the_self_inspection_are_all_answered(tmp_path: Path) -> None:
    clean = verify(folder_of(tmp_path / "out", [radiograph()]), known_list(tmp_path))
    assert clean.ok
    items = safe_harbor(clean)
    assert [item.number for item in items] == list("ABCDEFGHIJKLMNOPQR")
    assert {item.state for item in items} == {"clear"}
    states = {item.number: item.state for item in korea(clean)}
    assert states["3"] == states["9"] == "clear"
    assert states["1"] == states["13"] == "reviewer"
    bad = safe_harbor(verify(spoiled(tmp_path / "b"), known_list(tmp_path)))
    assert next(item for item in bad if item.number == "A").state == "found"


def test_without_a_list_the_report_says_what_could_not_be_searched(tmp_path: Path) -> None:
    found = read(one_object(tmp_path / "out"))
    assert found.ok
    html, data = write_report(found, tmp_path / "report")
    assert "no list" in html.read_text()
    assert any("--known" in line for line in json.loads(data.read_text())["limits"])
    assert next(item for item in safe_harbor(found) if item.number == "A").state == "look"


def test_names_of_files_are_escaped(tmp_path: Path) -> None:
    path = one_object(tmp_path / "out")
    path.rename(path.with_name("<script>alert(1)<script>.dcm"))
    html, _ = write_report(verify(path.parent, needs_evidence=False), tmp_path / "report")
    assert "<script" not in html.read_text()


def test_sample_pictures_are_chosen_by_a_seed_from_what_claims_to_be_free_of_text(tmp_path: Path) -> None:
    out = folder_of(tmp_path, [radiograph(number, rows=40, columns=30) for number in range(6)])
    put(out / "0004.dcm", 0x00280301, "CS", b"YES")
    first, again, other = (verify(out, samples=3, seed=seed) for seed in (1, 1, 2))
    assert [p.file for p in first.pictures] == [p.file for p in again.pictures]
    assert {p.file for p in first.pictures} != {p.file for p in other.pictures}
    everything = verify(out, samples=99)
    assert "0004.dcm" not in {p.file for p in everything.pictures}
    assert len(everything.pictures) == 5


def test_a_deflated_file_has_its_picture_and_nothing_is_printed(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    out = folder_of(tmp_path, [radiograph(number, rows=40, columns=30) for number in (1, 2)])
    plain = {picture.file: picture.png for picture in verify(out).pictures}
    deflated = dcmread(out / "0001.dcm")
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    deflated.save_as(out / "0001.dcm")
    found = verify(with_evidence(out))
    assert {picture.file: picture.png for picture in found.pictures} == plain
    assert len(plain) == 2
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("shape", [(3, 5), (4, 4, 3), (1, 1)])
def test_pictures_are_png_files_of_the_very_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = png(pixels)
    assert struct.unpack(">II", data[16:24]) == (shape[1], shape[0])
    raw = zlib.decompress(data[data.index(b"IDAT") + 4 : -16])
    rows = np.frombuffer(raw, np.uint8).reshape(shape[0], -1)
    assert not rows[:, 0].any()
    assert np.array_equal(rows[:, 1:].reshape(shape), pixels)


def test_the_report_of_a_folder_may_lie_in_it(tmp_path: Path) -> None:
    out = folder_of(tmp_path, [radiograph()])
    write_report(verify(out), out)
    assert verify(out).ok
