from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from federations import Cases, draw_cases, judgement_of
from hypothesis import given
from hypothesis import strategies as st
from runs import BINARY, SITES, SIX, draw_judgement, draw_record

from fedai.charts import axis_for
from fedai.checklists import FOR_AUTHORS, checklists
from fedai.compare import compare
from fedai.figures import without_repeats
from fedai.judgement import Judgement
from fedai.report import render
from fedai.tables import number, signed

VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Collects the visible text and the tags, and complains of tags that don't close."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(judgement: Judgement, record: dict[str, Any]) -> str:
    return render(record, compare(judgement), judgement)


@pytest.fixture(scope="module")
def binary() -> str:
    return page_of(draw_judgement(), draw_record())


@pytest.fixture(scope="module")
def six() -> str:
    return page_of(draw_judgement(SIX), draw_record(SIX))


def test_the_report_needs_nothing_but_itself(binary: str, six: str) -> None:
    for page in (binary, six):
        assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=", page)
        assert Reader(page).tags.isdisjoint({"script", "link", "img", "iframe", "object", "form"})


def test_its_html_is_closed_and_its_pictures_are_well_formed(binary: str, six: str) -> None:
    for page in (binary, six):
        assert Reader(page).open == []
        pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
        assert len(pictures) > 10
        for picture in pictures:
            numbers = [v for e in ET.fromstring(picture).iter() for v in e.attrib.values()]  # noqa: S314
            assert not any(re.search(r"\bnan\b|\binf\b", value) for value in numbers)


def test_it_says_what_the_comparison_says(binary: str) -> None:
    comparison = compare(draw_judgement())
    text = Reader(binary).text
    for model in comparison.models:
        for result in (model.pooled, *model.sites.values()):
            assert number(result.auroc.value) in text
    main = comparison.differences[0]
    assert signed(main.difference) in text
    first = comparison.models[0].pooled
    assert f"{first.cases} images of {first.patients} other patients" in text
    assert "It was better than the models that each site trained alone" in text


def test_it_accounts_for_every_cohort_and_every_round(binary: str) -> None:
    record, text = draw_record(), Reader(binary).text
    for cohort in record["cohorts"].values():
        for count in cohort["flow"].values():
            assert str(count) in text
    assert "11 without a label" in text
    assert text.count("a7fa7f") == 0
    for closed in record["rounds"]:
        assert closed["checkpoint"][:12] in text
    assert "Updates of sites that were late" in text


def test_images_of_which_no_split_tells_are_accounted_for(binary: str) -> None:
    record = draw_record()
    assert "fewer images than were used" not in Reader(binary).text
    record["cohorts"]["east"]["splits"]["validation"] = {"patients": 0, "cases": 0, "classes": [0, 0]}
    text = Reader(page_of(draw_judgement(), record)).text
    assert "At east the splits tell of fewer images than were used" in text


def test_the_report_has_curves_flow_matrix_and_checklists(binary: str, six: str) -> None:
    for page, classes in ((binary, BINARY[1:]), (six, SIX)):
        for figure in ("ROC curves", "Precision and recall", "Calibration", "Decision curves"):
            assert all(f'aria-label="{figure}, {name}"' in page for name in classes)
        assert 'by where a model was trained and tested"' in page
    text = Reader(binary).text
    for words in ("true positive", "A further hospital", "What left the sites", "fewer than 3 patients"):
        assert words in text


def test_checklists_answer_what_the_run_knows_and_leave_the_rest_to_the_authors() -> None:
    record = draw_record()
    study = {"name": "s", "purpose": {"statement": "Why.", "sponsors": ["A fund"], "ethics": []},
             "training": {"rounds": 3, "optimizer": {"name": "SGD"}, "loss": {"name": "Focal"}}}  # fmt: skip
    claim, tripod = checklists(record | {"study": study}, compare(draw_judgement()))
    assert [row[0] for row in claim.rows] == [str(n) for n in range(1, 45)]
    assert len(tripod.rows) == 52
    told = {row[0]: row[2] for row in claim.rows}
    assert told["44"] == "A fund"
    assert told["25"].startswith("FedAvg, 3 rounds")
    assert told["14"] == told["2"] == FOR_AUTHORS
    bare = {row[0]: row[2] for row in checklists(record, compare(draw_judgement()))[0].rows}
    assert bare["44"] == bare["25"] == FOR_AUTHORS


def test_many_classes_have_a_curve_each(six: str) -> None:
    for name in SIX:
        assert f'aria-label="ROC curves, {name}"' in six
    assert "mean AUROC over 6 classes" in Reader(six).text


def test_everything_that_comes_from_outside_is_escaped() -> None:
    evil = '<script>alert("x")</script>&amp;'
    record = draw_record()
    record |= {"run": evil, "reason": evil, "state": evil, "started": evil, "versions": {evil: evil}}
    record["study"] = {"name": evil, "purpose": evil, "task": {"classes": [evil, evil]}}
    record["cohorts"] = {evil: record["cohorts"]["north"] | {"excluded": {evil: 3}}}
    record["refused"] = {evil: evil}
    for closed in record["rounds"]:
        closed |= {"answered": [evil], "late": [evil], "refused": {evil: evil}, "checkpoint": evil}
    rng = np.random.default_rng(0)
    cases = draw_cases(rng, "s", 30, skill={"federated": 1.0, f"local:{evil}": 0.5, evil: 0.4})
    page = page_of(judgement_of({evil: cases, "b": cases}, ("normal", evil)), record)
    reader = Reader(page)
    assert "script" not in reader.tags
    assert reader.open == []
    assert "&amp;amp;" in page
    for picture in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(picture)  # noqa: S314


def test_a_site_with_one_class_and_one_that_gave_no_scores_are_named() -> None:
    rng = np.random.default_rng(1)
    skill = {"federated": 1.5, "local:north": 1.0, "local:east": 1.0}
    sites = {s: draw_cases(rng, s, 30, skill=skill) for s in ("north", "east")}
    east = sites["east"]
    keep = east.labels == 0
    names = [p for p, k in zip(east.patients, keep, strict=True) if k]
    sites["east"] = Cases({m: s[keep] for m, s in east.scores.items()}, east.labels[keep], names)
    text = Reader(page_of(judgement_of(sites, BINARY), draw_record())).text
    assert "AUROC at east: its test images are all of one class" in text
    assert "The models at south: it gave no test scores" in text
    left_out = draw_record() | {"left_out": {"south": "TRAINING 0123456789ab"}}
    text = Reader(page_of(judgement_of(sites, BINARY), left_out)).text
    assert "The models at south: left out of the judgement (TRAINING 0123456789ab)" in text
    assert "the data may not be brought together" in text


def test_a_run_that_stopped_before_its_first_round_still_has_a_report() -> None:
    record = draw_record(rounds=0) | {
        "state": "failed",
        "reason": "quorum not met",
        "cohorts": {},
        "versions": {},
    }
    text = Reader(page_of(draw_judgement(), record)).text
    assert "No round was closed" in text
    assert "quorum not met" in text


def test_many_sites_show_their_own_model_and_the_shared_ones() -> None:
    rng = np.random.default_rng(2)
    names = [f"site-{i}" for i in range(9)]
    skill = {"federated": 1.5, **{f"local:{s}": 1.0 for s in names}}
    sites = {s: draw_cases(rng, s, 20, skill=skill) for s in names}
    page = page_of(judgement_of(sites, BINARY), draw_record())
    group = re.search(r'<svg[^>]*aria-label="site-4: .*?</svg>', page, re.DOTALL)
    assert group
    assert "site-4 alone" in group.group()
    assert "site-5 alone" not in group.group()
    assert "9 sites trained one model together" in Reader(page).text


def test_versions_are_told_apart_only_where_sites_differ() -> None:
    record = draw_record()
    same = {s: {"fedai": "0.1.0", "torch": "2.6"} for s in SITES}
    odd = copy.deepcopy(same)
    odd["east"]["torch"] = "2.7"
    judgement = draw_judgement()
    assert "Versions fedai 0.1.0, torch 2.6" in Reader(page_of(judgement, record | {"versions": same})).text
    assert (
        "Versions at east fedai 0.1.0, torch 2.7"
        in Reader(page_of(judgement, record | {"versions": odd})).text
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_dropping_repeats_changes_no_curve(steps: list[tuple[int, int]]) -> None:
    points = [(float(x), float(y)) for x, y in np.cumsum([(0, 0), *steps], axis=0)]
    kept = without_repeats(points)
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    xs, ys = np.array(points).T
    kx, ky = np.array(kept).T
    assert np.trapezoid(ys, xs) == pytest.approx(np.trapezoid(ky, kx))
    assert set(kept) <= set(points)


@given(st.lists(st.floats(-1e4, 1e4), max_size=8))
def test_an_axis_encloses_its_values_with_few_round_ticks(values: list[float]) -> None:
    axis = axis_for("x", values)
    assert all(axis.low - 1e-6 <= v <= axis.high + 1e-6 for v in values)
    assert axis.low < axis.high
    assert 2 <= len(axis.ticks) <= 8


@pytest.mark.parametrize(
    ("value", "text"), [(0.9999, ">0.999"), (1.0, "1.000"), (0.9994, "0.999"), (None, "–"), (0.0, "0.000")]
)
def test_what_only_rounds_to_one_is_not_printed_as_one(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(-0.0001, "+0.000"), (-0.012, "−0.012"), (0.3, "+0.300")])
def test_differences_have_signs_and_never_minus_zero(value: float, text: str) -> None:
    assert signed(value) == text
