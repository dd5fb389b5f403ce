from __future__ import annotations

from pathlib import Path

import pytest
from fedai_site.labels import LabelRow, read_labels

from fedai.errors import ConfigError


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("key", ["PatientID", "AccessionNumber", "SOPInstanceUID"])
def test_labels_are_read_with_their_lines(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, f"note,{key}, label\nx, 007 ,nodule\n\ny,8,normal\n", "utf-8-sig")
    table = read_labels(path)
    assert table.kind == key
    assert table.rows == (LabelRow(2, "007", "nodule"), LabelRow(4, "8", "normal"))


def test_all_problems_are_listed_at_once_and_no_patient_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "PatientID,label\nHONG1,nodule\nHONG1,nodule\nHONG1,normal\n,normal\nHONG2\n")
    with pytest.raises(ConfigError) as caught:
        read_labels(path)
    assert str(caught.value).splitlines() == [
        f"{path}:3: repeats line 2",
        f"{path}:4: another label than line 2 for the same PatientID",
        f"{path}:5: PatientID is empty",
        f"{path}:6: label is empty (patients are named by their line only)",
    ]


def test_several_readers_may_label_one_key_each_once(tmp_path: Path) -> None:
    text = "PatientID,label,reader,source\n7,nodule, Dr.  Kim ,Image reading\n"
    text += "7,clear,Lee,\n7,nodule,,consensus\n"
    rows = read_labels(write(tmp_path, text)).rows
    assert [(row.label, row.reader, row.source) for row in rows] == [
        ("nodule", "dr. kim", "image reading"), ("clear", "lee", ""), ("nodule", "", "consensus"),
    ]  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        read_labels(write(tmp_path, text + "7,clear,DR. KIM,gossip\n"))
    assert str(caught.value).splitlines()[0].startswith(f"{tmp_path}/labels.csv:5: source is none of: ")
    assert "5: another label than line 2 for the same PatientID and reader" in str(caught.value)
    assert "kim" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            "patient,label",
            "no key column; exactly one of PatientID, AccessionNumber, SOPInstanceUID is needed",
        ),
        ("PatientID,AccessionNumber,label", "key columns PatientID and AccessionNumber; exactly one"),
        ("PatientID,class", "no column named label"),
        ("PatientID,label,reader,reader", "2 columns named reader"),
        ("PatientID;label", "columns must be separated by commas"),
    ],
)
def test_a_wrong_header_is_explained(tmp_path: Path, header: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_labels(write(tmp_path, f"{header}\n1,2,3\n"))


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    for path in (write(tmp_path, ""), tmp_path / "missing.csv", tmp_path):
        with pytest.raises(ConfigError):
            read_labels(path)
    (tmp_path / "korean.csv").write_bytes("PatientID,label\n홍,정상\n".encode("cp949"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_labels(tmp_path / "korean.csv")
