from __future__ import annotations

import re
import time
from datetime import date, datetime, timedelta

import pytest
from fedai_site.deidentify.dates import Dates
from fedai_site.deidentify.datewords import MONTHS
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

SHIFT = Dates("shift", -400)
DAYS = st.dates(date(1880, 1, 1), date(2190, 12, 31))
OFFSETS = st.integers(-3650, -365)


def read(value: str | None) -> date:
    assert value is not None
    return datetime.strptime(value, "%Y%m%d").date()


@given(DAYS, DAYS, OFFSETS)
@settings(deadline=None)
@example(date(2000, 2, 29), date(2004, 2, 29), -365)
@example(date(1900, 2, 28), date(1900, 3, 1), -366)
def test_an_interval_after_shifting_is_the_interval_before(first: date, last: date, offset: int) -> None:
    dates = Dates("shift", offset)
    moved = [read(dates.value("DA", f"{day:%Y%m%d}")) for day in (first, last)]
    assert moved[1] - moved[0] == last - first
    assert moved[0] - first == timedelta(days=offset)


@given(st.datetimes(datetime(1880, 1, 1), datetime(2190, 12, 31)), OFFSETS)
@settings(deadline=None)
def test_the_time_of_day_and_the_zone_stay_while_the_day_moves(when: datetime, offset: int) -> None:
    dates = Dates("shift", offset)
    moved = dates.value("DT", when.strftime("%Y%m%d%H%M%S.%f") + "+0900")
    assert moved is not None
    assert moved.endswith("+0900")
    assert datetime.strptime(moved[:-5], "%Y%m%d%H%M%S.%f") - when == timedelta(days=offset)


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("DA", "20190312", "20180205"),
        ("DA", " 20190312\0", "20180205"),
        ("DA", "2019.03.12", "2018.02.05"),
        ("DA", "20200229", "20190125"),
        ("DA", "20190312-20190415", "20180205-20180311"),
        ("DA", "20190312-", "20180205-"),
        ("DA", "-20190415", "-20180311"),
        ("DA", "20190312\\\\20190415", "20180205\\\\20180311"),
        ("DA", "", ""),
        ("DT", "2019031210", "2018020510"),
        ("DT", "20190312101530-0500", "20180205101530-0500"),
        ("DT", "20190312-20190415", "20180205-20180311"),
        ("DT", "20190312-0500-20190415-0500", "20180205-0500-20180311-0500"),
        ("TM", "101530.123456", "101530.123456"),
        ("TM", "10:15:30", "10:15:30"),
        ("TM", "1015-1200", "1015-1200"),
        ("TM", "235960", "235960"),
    ],
)
def test_a_value_is_shifted_in_its_own_form(vr: str, raw: str, expected: str) -> None:
    assert SHIFT.value(vr, raw) == expected


@pytest.mark.parametrize(
    ("vr", "raw"),
    [
        ("DA", "20190231"),
        ("DA", "19000229"),
        ("DA", "00000000"),
        ("DA", "00010101"),  # would leave the calendar
        ("DA", "201903"),
        ("DA", "2019"),
        ("DA", "HONG"),
        ("DA", "20190312 HONG"),
        ("DA", "20190312\\HONG"),
        ("DA", "20190312-HONG"),
        ("DA", "-"),
        ("DA", "２０１９０３１２"),
        ("DT", "2019"),  # without its day a shift can't be exact
        ("DT", "201903+0900"),
        ("DT", "20190312251530"),
        ("DT", "20190312101530+1500"),
        ("DT", "20190312101530.1234567"),
        ("TM", "2515"),
        ("TM", "1015308501011234"),
        ("TM", "10:15:30 Kim"),
    ],
)
def test_what_cannot_be_shifted_exactly_is_not_kept(vr: str, raw: str) -> None:
    assert SHIFT.value(vr, raw) is None


def test_the_other_modes_keep_all_the_year_or_nothing() -> None:
    assert Dates("keep").value("DA", "20190312") == "20190312"
    assert Dates("keep").value("DA", "Hong Gildong") is None
    assert Dates("year").value("DA", "20190312") == "20190101"
    assert Dates("year").value("DT", "20190312101530+0900") == "20190101"
    assert Dates("year").value("DT", "2019") == "2019"
    assert Dates("year").value("TM", "101530") is None
    assert Dates("remove").value("DA", "20190312") is None
    assert Dates("remove").value("TM", "101530") is None


def test_a_shift_by_no_days_and_a_representation_without_dates_are_refused() -> None:
    with pytest.raises(ValueError, match="0 days"):
        Dates("shift", 0)
    with pytest.raises(ValueError, match="LO"):
        SHIFT.value("LO", "20190312")


@given(st.sampled_from(["DA", "DT", "TM"]), st.text(), st.sampled_from(["shift", "year", "keep", "remove"]))
@settings(max_examples=300, deadline=None)
def test_no_text_passes_for_a_date(vr: str, raw: str, mode: str) -> None:
    value = Dates(mode, -400).value(vr, raw)  # type: ignore[arg-type]
    assert value is None or re.fullmatch(r"[0-9.:+\\-]*", value)


FORMS = [
    "{y}{m}{d}",
    "{y}-{m}-{d}",
    "{y}.{m}.{d}",
    "{y}/{m}/{d}",
    "{d}.{m}.{y}",
    "{d} {n} {y}",
    "{N} {d}, {y}",
    "{y}년 {m}월 {d}일",
    "{y}年{m}月{d}日",
    "{y}{m}{d}101530",
    "{y}-{m}-{d}T10:15:30+09:00",
    "{d}-{n}-{y}",
    "{n} {d} 10:15:30 {y}",
    "{d}. {g} {y}",
    "{y}_{m}_{d}",
    "{y} {m} {d}",
    "{y}{m}{d}_101530",
    "{d}{n}{y}",
]


def shown(form: str, day: date) -> str:
    names = {key: MONTHS[row][day.month - 1].capitalize() for key, row in (("n", 0), ("N", 1), ("g", 3))}
    return form.format(y=f"{day.year:04}", m=f"{day.month:02}", d=f"{day.day:02}", **names)


@given(st.sampled_from(FORMS), DAYS, OFFSETS)
@settings(deadline=None)
def test_a_date_within_text_is_shifted_in_its_own_form(form: str, day: date, offset: int) -> None:
    assume("{N}" not in form or day.month != 5)  # May is short and long
    assume("{g}" not in form or day.month not in (4, 5, 8, 9, 11))  # the same in English
    before, after = shown(form, day), shown(form, day + timedelta(days=offset))
    assert Dates("shift", offset).in_text(f"CT of {before}, chest") == f"CT of {after}, chest"


@given(st.sampled_from(FORMS), DAYS)
@settings(deadline=None)
def test_no_part_of_a_date_but_its_year_is_left_in_the_other_modes(form: str, day: date) -> None:
    text = f"CT of {shown(form, day)}, chest"
    assert Dates("keep").in_text(text) == text
    assert Dates("remove").in_text(text) == "CT of , chest"
    assert Dates("year").in_text(text) == f"CT of {day.year}, chest"


@pytest.mark.parametrize(
    "text",
    [
        "03/12/2019",
        "12.3.19",
        "'19.3.12",
        "190312",
        "120319",
        "12032019",
        "3월 12일",
        "2019년 3월",
        "March 2019",
        "令和元年5月1日",
        "平成31年3月12日",
        "H31.3.12",
        "12 Mar",
        "12-Mar-19",
        "2019-03",
        "03/2019",
        "2019-W11-2",
        "850101-1234567",
        "8501011234567",
        "02012019031277",
        "12-14 March 2019",
        "March 12-14, 2019",
        "20190231",
        "12.-14.03.2019",
    ],
)
def test_what_may_be_a_date_but_is_not_certain_is_removed(text: str) -> None:
    assert SHIFT.in_text(f"a {text} b") == "a  b"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("13/03/2019", "06/02/2018"),
        ("03/13/2019", "02/06/2018"),
        ("2019년 3월 12일", "2018년 2월 5일"),
        ("２０１９年３月１２日", "2018年2月5日"),
        ("2019-03-12(화)", "2018-02-05"),
        ("Tue, 12 Mar 2019", "05 Feb 2018"),
        ("12th March 2019", "05 February 2018"),
        ("MARCH 12, 2019", "FEBRUARY 05, 2018"),
        ("12 de marzo de 2019", "05 de febrero de 2018"),
        ("1er août 2019", "27 juin 2018"),
        ("20190312-20190415", "20180205-20180311"),
    ],
)
def test_other_forms_are_shifted_too(text: str, expected: str) -> None:
    assert SHIFT.in_text(text) == expected


@pytest.mark.parametrize(
    "text",
    ["L4-5 T1 3D 5mm 1.5T", "1.2.840.10008.5.1.4", "FoV 512x512", "OCT macula", "TE 2000", "b1000", "MAR on"],
)
def test_numbers_that_are_no_dates_stay(text: str) -> None:
    assert Dates("remove").in_text(text) == text


def test_times_of_day_stay_with_a_shift_and_go_otherwise() -> None:
    for text in ("at 10:15:30", "at 10:15 pm", "at 오전 10시 15분"):
        assert SHIFT.in_text(text) == text
        assert Dates("remove").in_text(text).strip() == "at"
        assert Dates("year").in_text(text).strip() == "at"


@given(st.text(alphabet="0123456789-./: TMaryjun년월일年'th,+\n", max_size=60))
@settings(max_examples=500, deadline=None)
def test_the_pieces_of_a_text_are_the_text(text: str) -> None:
    assert Dates("keep").in_text(text) == text
    assert isinstance(SHIFT.in_text(text), str)


@pytest.mark.parametrize("piece", ["1", "1.", "2019-", "12 Mar ", "2019 ", "1:1", " ", "12-"])
def test_long_text_takes_time_in_proportion(piece: str) -> None:
    start = time.perf_counter()
    SHIFT.in_text(piece * (60_000 // len(piece)))
    assert time.perf_counter() - start < 60
