"""The bench against de-identification: its answer key is honest, and the engine stands up to it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from datetime import datetime
from io import BytesIO
from pathlib import Path
from random import Random

import pydicom
import pytest
from dicom_files import SECRET
from fedai_site.deidentify import Deidentifier, write
from fedai_site.deidentify.profile import load_profile
from fedai_site.deidentify.reading import parse
from fedai_site.quarantine import Quarantine
from pydicom import config
from pydicom.dataset import Dataset

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.deidentification import linkage, table
from benchmarks.deidentification.burned import ink_left
from benchmarks.deidentification.corpus import Made, generate
from benchmarks.deidentification.identities import SCRIPTS, native, word
from benchmarks.deidentification.leaks import is_in, still_there
from benchmarks.deidentification.objects import image
from benchmarks.deidentification.standard import OPTIONS, rows

FILES = 72


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = config.settings.reading_validation_mode, config.settings.writing_validation_mode
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    config.settings.reading_validation_mode, config.settings.writing_validation_mode = before


@pytest.fixture(scope="module")
def corpus() -> list[Made]:
    return list(generate(FILES, 2027, [], burned=False))


def test_each_file_of_the_corpus_holds_its_85_identifiers_and_more(corpus: list[Made]) -> None:
    assert all(len(one.entry["plants"]) >= 85 for one in corpus)
    one = corpus[3]
    assert still_there(one.entry["plants"], one.data, one.data) == one.entry["plants"]


def test_the_same_seed_makes_the_same_bytes(corpus: list[Made]) -> None:
    assert [one.data for one in generate(5, 2027, [], burned=False)] == [one.data for one in corpus[:5]]
    assert next(generate(1, 2028, [], burned=False)).data != corpus[0].data


def left_in(corpus: list[Made], profile: str, *, in_streams: bool) -> tuple[set[str], int]:
    """Where identifiers are left in the written files, and how many were written. `in_streams`: of those
    inside compressed pixels, otherwise of all others.
    """
    engine = Deidentifier(SECRET, load_profile(profile))
    found, written = set(), 0
    for one in corpus:
        try:
            data = write(engine.clean(parse(one.data)))
        except Quarantine:
            continue
        written += 1
        plants = [plant for plant in one.entry["plants"] if (plant["kind"] == "codestream") == in_streams]
        found |= {f"{one.entry['kind']} {leak['where']}" for leak in still_there(plants, one.data, data)}
    return found, written


@pytest.mark.parametrize("profile", ["basic", "basic+safe-private+descriptors+structured-content+graphics"])
def test_of_what_is_written_of_the_corpus_nothing_planted_is_left(corpus: list[Made], profile: str) -> None:
    found, written = left_in(corpus, profile, in_streams=False)
    assert not found, sorted(found)
    assert written > 0.8 * FILES


def test_no_word_hides_inside_compressed_pixels(corpus: list[Made]) -> None:
    found, _ = left_in(corpus, "basic", in_streams=True)
    assert not found, sorted(found)


@pytest.mark.parametrize("nested", [False, True], ids=["top level", "nested"])
@pytest.mark.parametrize("option", [None, *OPTIONS], ids=str)
def test_every_row_is_handled_as_this_reading_of_the_table_says(option: str | None, nested: bool) -> None:
    buffer = BytesIO()
    table.probe(nested).save_as(buffer, enforce_file_format=True)
    engine = Deidentifier(SECRET, load_profile(f"basic+{option}" if option else "basic"))
    after = pydicom.dcmread(BytesIO(write(engine.clean(parse(buffer.getvalue())))))
    verdicts = table.judge(pydicom.dcmread(BytesIO(buffer.getvalue())), after, option, nested)
    assert len(verdicts) == len(rows()) == 657
    assert [one for one in verdicts if not one.right] == []


def test_a_copy_is_judged_wrong_in_nearly_every_row() -> None:
    copy = table.probe(nested=False)
    wrong = [one for one in table.judge(copy, copy, None, nested=False) if not one.right]
    assert len(wrong) > 640


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_word_is_found_in_each_encoding_that_a_file_may_have(script: object) -> None:
    made = native(Random(4), script)  # type: ignore[arg-type]
    for encoding in ("utf-8", "latin-1", "iso8859-5", "euc-kr", "iso2022-jp", "gb18030", "utf-16-le"):
        raw = made.encode(encoding, "ignore")
        if raw and raw.decode(encoding) == made:
            assert is_in(made, b"\1\2" + raw.lower() + b"\3"), encoding
    assert not is_in(made, word(Random(9)).encode())


def test_ink_is_gone_only_where_the_region_no_longer_looks_like_itself() -> None:
    before = image(Random(1), 1, 64, 1, 8)[0, :, :, 0].astype("float32")
    before[4:12:2, 4:30:3] = 255
    blank = before.copy()
    blank[2:14, 2:32] = 7
    box = (2, 2, 14, 32)
    assert ink_left(before, before, box)
    assert ink_left(before, before * 0.5 + 3, box)
    assert not ink_left(before, blank, box)


def test_one_offset_for_all_of_a_patients_dates_keeps_intervals() -> None:
    def linked(*days: int) -> linkage.Linked:
        return linkage.Linked("p", "", {}, (), tuple(datetime(2020, 1, day) for day in days))

    key = {"files": {"a": {"patient": "1"}, "b": {"patient": "1"}}}
    before = {"a": linked(10, 13), "b": linked(20, 21)}
    assert linkage.intervals(before, {"a": linked(5, 8), "b": linked(15, 16)}, key) == (1, 0, 0)
    assert linkage.intervals(before, {"a": linked(5, 8), "b": linked(14, 15)}, key) == (0, 1, 0)
    assert linkage.intervals(before, before, key) == (0, 0, 1)


def test_merged_and_split_patients_are_told() -> None:
    key = {"files": {name: {"patient": name[0]} for name in ("a1", "a2", "b1")}}

    def run(issuers: str = "   ", **names: str) -> str:
        before = {
            path: linkage.Linked("", issuer.strip(), {}, (), ())
            for path, issuer in zip(names, issuers, strict=True)
        }
        after = {path: linkage.Linked(name, "", {}, (), ()) for path, name in names.items()}
        return linkage.patients(key, before, after)

    assert run(a1="x", a2="x", b1="y") == "1:1"
    assert run(a1="x", a2="x", b1="x") == "merged"
    assert run(a1="x", a2="z", b1="y") == "split"
    assert run(" Z ", a1="x", a2="z", b1="y") == "1:1"
    assert run(a1="", a2="", b1="") == "blank"


def test_a_listed_value_that_is_left_is_named() -> None:
    from benchmarks.deidentification.real_files import listed_left

    source, target = Dataset(), Dataset()
    source.PatientName = target.PatientName = "Zvoukelainth"
    source.StudyDate, target.StudyDate = "20200101", "20190101"
    assert listed_left(source, target) == ["00100010 Patient's Name (Z)"]


@pytest.mark.parametrize("stated", ["1", None])
def test_frames_beyond_those_that_the_header_counts_are_refused(stated: str | None) -> None:
    from pydicom.data import get_testdata_file

    image = pydicom.dcmread(str(get_testdata_file("SC_rgb_rle_2frame.dcm", download=False)))
    Deidentifier(bytes(32)).clean(image)
    del image.NumberOfFrames
    if stated:
        image.NumberOfFrames = stated
    with pytest.raises(Quarantine, match="more frames"):
        Deidentifier(bytes(32)).clean(image)
