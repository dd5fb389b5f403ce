"""A segmentation's report, model card, crate and checklists: what they say is what the rows say."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outline_runs import LEVELS, draw_run, judge, outline_record, outline_study, write_outlined
from runs import SITES, draw_judgement, draw_record
from test_report import Reader

from fedai.charts import Axis, Bar, Strip, Style, intervals, strips
from fedai.checklists import FOR_AUTHORS, checklists
from fedai.cli.app import run as fedai
from fedai.compare import compare
from fedai.model_card import card_of, markdown
from fedai.outline_figures import WITHHELD
from fedai.outline_report import render_outlines
from fedai.outline_results import OutlineComparison, compare_outlines
from fedai.outline_sections import EMPTY_MASKS
from fedai.outlines import MEASURES
from fedai.tables import number

Capture = pytest.CaptureFixture[str]
TWO = ("lesion", "lung")


@pytest.fixture(scope="module")
def comparison() -> OutlineComparison:
    return compare_outlines(judge(draw_run()))


@pytest.fixture(scope="module")
def page(comparison: OutlineComparison) -> str:
    return render_outlines(comparison, outline_record())


def few_at_south() -> dict[str, Any]:
    """A run in which model and reference outline two patients of south alone: HD95 isn't told of there."""
    drawn = draw_run()
    made, patients = drawn["south"]
    known = np.isin(patients, sorted(set(patients))[:2])
    for values, found in made.values():
        found[known], found[~known] = 3, 2
        values[~known, :, :2], values[~known, :, 2] = 0.0, np.nan
        values[..., 3] = np.nan_to_num(values[..., 3])
        values[known] = np.nan_to_num(values[known], nan=0.5)
    return drawn


def pictures_of(page: str) -> dict[str, str]:
    """By heading."""
    found = re.findall(r'<svg viewBox="[^"]*" role="img" aria-label="([^"]*)">(.*?)</svg>', page, re.DOTALL)
    return dict(found)


def test_the_report_needs_nothing_but_itself_and_its_pictures_are_well_formed(page: str) -> None:
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=", page)
    assert Reader(page).tags.isdisjoint({"script", "link", "img", "iframe", "object", "form"})
    assert Reader(page).open == []
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) > 12
    for picture in pictures:
        numbers = [v for e in ET.fromstring(picture).iter() for v in e.attrib.values()]  # noqa: S314
        assert not any(re.search(r"\bnan\b|\binf\b", value) for value in numbers)


def test_a_forest_has_every_model_at_every_site_and_the_main_one_over_sites(
    page: str, comparison: OutlineComparison
) -> None:
    pictures = pictures_of(page)
    for where in ("all sites", *SITES):
        (picture,) = [p for head, p in pictures.items() if head.startswith(f"Mean Dice of lesion, {where}: ")]
        assert picture.count("<circle") == len(LEVELS)
    (over,) = [p for head, p in pictures.items() if "over sites, I²" in head]
    for name in (*SITES, "All images", "Random effects", "A further hospital"):
        assert f">{name}<" in over
    main = comparison.model("federated")
    assert main is not None
    low, high = main.pooled[0].means["dice"].ci95 or (0, 0)
    assert f"{number(main.pooled[0].means['dice'].value)} ({number(low)} to {number(high)})" in over


def test_differences_are_drawn_for_all_sites_and_for_each_sites_own_model(page: str) -> None:
    pictures = pictures_of(page)
    (pooled,) = [p for head, p in pictures.items() if head.startswith("Dice of lesion: Federated minus …")]
    assert pooled.count("<circle") == len(LEVELS)  # the others and the mean of the local ones
    (own,) = [p for head, p in pictures.items() if "each site's own model" in head.replace("&#x27;", "'")]
    assert own.count("<circle") == len(SITES)


def test_the_spread_of_each_measure_says_the_percentiles_of_the_rows(page: str) -> None:
    """To half a bin, of every model, over the cases of all sites."""
    drawn, pictures = draw_run(), pictures_of(page)
    names = {"federated": "Federated", "centralised": "All data in one place"}
    for v, (head, half) in enumerate(
        (("Dice", 0.0025), ("NSD", 0.0025), ("HD95, mm", 0.25), ("Area error, mm²", 5))
    ):
        words = re.findall(r"<text[^>]*>([^<]*)</text>", pictures[f"lesion: {head}, by model"])
        for model in LEVELS:
            name = names.get(model, f"{model.removeprefix('local:')} alone")
            told = words[words.index(name) + 1].replace("−", "-")
            numbers = [float(one) for one in re.findall(r"-?\d+\.?\d*", told)]
            rows = np.concatenate([made[model][0][:, 0, v] for made, _ in drawn.values()])
            rows = rows[np.isfinite(rows)]
            true = [np.quantile(rows, share, method="averaged_inverted_cdf") for share in (0.5, 0.25, 0.75)]
            assert np.abs(np.array(numbers) - true).max() <= half * 1.001 + 0.5 * 10 ** -(0 if v == 3 else 3)


def test_a_strips_line_box_and_stroke_lie_where_their_values_do() -> None:
    axis = Axis("Dice", 0.0, 1.0, (0.0, 0.5, 1.0))
    picture = strips([Strip("a", Style("#000000"), (0.1, 0.9), (0.25, 0.75), 0.5, "x")], axis, heading="h")
    ticks = [float(x) for x in re.findall(r'<line x1="([\d.]+)" y1="22.0"', picture)]
    across = {share: ticks[0] + share * (ticks[2] - ticks[0]) for share in (0.1, 0.25, 0.5, 0.75, 0.9)}
    box = re.search(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', picture)
    assert box
    assert float(box[1]) == pytest.approx(across[0.25], abs=0.06)
    assert float(box[1]) + float(box[2]) == pytest.approx(across[0.75], abs=0.12)
    lines = [
        (float(a), float(b)) for a, b in re.findall(r'<line x1="([\d.]+)" y1="37.0" x2="([\d.]+)"', picture)
    ]
    assert lines == [pytest.approx((across[0.1], across[0.9]), abs=0.06)]
    (stroke,) = re.findall(r'<line x1="([\d.]+)" y1="31.0"', picture)
    assert float(stroke) == pytest.approx(across[0.5], abs=0.06)
    assert "<path" not in picture


def test_a_long_name_takes_room_from_the_plot_and_a_longer_one_loses_its_middle() -> None:
    """The plot begins right of the longest name."""
    axis, style = Axis("Dice", 0.0, 1.0, (0.0, 1.0)), Style("#000000")
    for name in ("a", "cxr-lesion-with-more-2: All data in one place", "x" * 50 + "y" * 50):
        picture = intervals([Bar(name, style, 0.5, (0.4, 0.6), "0.500")], axis, heading="h")
        shown = re.findall(r"<text[^>]*>([^<]*)</text>", picture)[1]
        start = min(float(x) for x in re.findall(r'<line x1="([\d.]+)"', picture))
        assert start >= max(190, 10 + 6.3 * len(shown))
        assert shown == name or (
            len(shown) == 48 and shown.startswith("xxx") and shown.endswith("…" + "y" * 25)
        )


def test_what_lies_beyond_the_bins_has_an_arrow_and_is_said() -> None:
    drawn = draw_run()
    for made, _ in drawn.values():
        values, found = made["federated"]
        far = (found == 3) & (np.arange(len(found)) % 2 == 0)[:, None]
        values[far, 2], values[far, 3] = 180.0, -4000.0
    page = render_outlines(compare_outlines(judge(drawn)), outline_record())
    pictures = pictures_of(page)
    assert "to beyond 100)" in pictures["lesion: HD95, mm, by model"]
    assert "(beyond −1,000 to" in pictures["lesion: Area error, mm², by model"]
    assert pictures["lesion: HD95, mm, by model"].count("<path") == 1


def test_what_a_site_withholds_is_said_in_words_and_is_in_no_number() -> None:
    comparison = compare_outlines(judge(few_at_south()))
    page = render_outlines(comparison, outline_record())
    text = Reader(page).text
    assert f"Withheld at south: HD95 of lesion (all models). {WITHHELD}" in text
    assert "Withheld at south: Dice" not in text
    rows = [line for line in re.findall(r"<tr>.*?</tr>", page) if "<td>south</td><td>Federated</td>" in line]
    assert any("<td>withheld</td>" in row for row in rows)
    main = comparison.models[0]
    rest = sum(main.sites[site][0].cases["hd95_mm"] for site in ("north", "east"))
    assert main.pooled[0].cases["hd95_mm"] == rest
    assert main.pooled[0].withheld("hd95_mm") == main.sites["south"][0].found["both"] > 0


def test_a_model_with_few_cases_is_named_and_not_drawn() -> None:
    drawn = draw_run()
    for made, _ in drawn.values():
        values, found = made["local:south"]
        found[found == 3] = 2
        values[found == 2, 2] = np.nan
        values[found == 2, :2] = 0.0
    page = render_outlines(compare_outlines(judge(drawn)), outline_record())
    assert "Not drawn for HD95: south alone, 0 cases." in Reader(page).text
    assert "south alone" not in pictures_of(page)["lesion: HD95, mm, by model"]


def test_at_each_site_the_report_lists_differences_in_dice_and_leaves_the_rest_to_the_files(
    page: str,
) -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    at_south = [row for row in rows if row.startswith("<td>south</td><td>Federated −")]
    assert any("<td>Dice</td>" in row for row in at_south)
    assert not any("<td>NSD</td>" in row for row in at_south)
    assert "The other measures&#x27; differences at each site are in --csv and --json." in page


def test_several_structures_have_their_own_figures_and_many_are_drawn_for_all_sites_alone() -> None:
    page = render_outlines(compare_outlines(judge(draw_run(structures=2), TWO)), outline_record(TWO))
    heads = pictures_of(page)
    for name in TWO:
        assert f"{name}: Dice, by model" in heads
        assert any(head.startswith(f"Mean Dice of {name}, south") for head in heads)
    assert "Dice on validation images at the start of each round" in Reader(page).text
    five = tuple(f"part-{n}" for n in range(5))
    page = render_outlines(compare_outlines(judge(draw_run(structures=5), five)), outline_record(five))
    assert not any(head.startswith("Mean Dice of part-1, south") for head in pictures_of(page))
    assert "Models at each site are in the table." in page
    assert "Its other 2 structures are below." in page


def test_the_summary_says_how_the_model_did_against_others_and_where_it_did_worst(
    page: str, comparison: OutlineComparison
) -> None:
    text, main = Reader(page).text, comparison.models[0]
    dice = number(main.pooled[0].means["dice"].value)
    assert f"The federated model outlined lesion with a mean Dice of {dice}" in text
    assert "It was better than the models that each site trained alone, on average" in text
    lowest = main.worst(0)
    assert lowest is not None
    assert f"it was lowest at {lowest[0]}: {number(lowest[1].value)}." in text


def test_sites_that_say_nothing_and_intervals_that_lack_patients_are_named() -> None:
    drawn = draw_run()
    few = {m: (values[:8], found[:8]) for m, (values, found) in drawn["south"][0].items()}
    drawn = {"north": drawn["north"], "south": (few, drawn["south"][1][:8])}
    record = outline_record() | {"left_out": {"east": "TRAINING 0123456789ab"}}
    text = Reader(render_outlines(compare_outlines(judge(drawn)), record)).text
    assert "The models at east: left out of the judgement (TRAINING 0123456789ab)" in text
    assert re.search(r"An interval of the mean Dice of lesion at south: \d patients, 10 are needed", text)
    assert "Updates of sites that were late" in text


def test_a_run_that_closed_no_round_still_has_a_report_of_its_local_models() -> None:
    drawn = {
        site: ({m: of for m, of in made.items() if m.startswith("local:")}, names)
        for site, (made, names) in draw_run().items()
    }
    record = outline_record() | {"rounds": [], "state": "failed", "reason": "quorum not met", "versions": {}}
    page = render_outlines(compare_outlines(judge(drawn)), record)
    assert "No round was closed" in page
    assert "quorum not met" in page
    assert pictures_of(page)["lesion: Dice, by model"].count("<rect") == 3
    assert not any("over sites" in head or "minus" in head for head in pictures_of(page))


def test_one_sites_run_has_a_report_without_sites_as_a_sample() -> None:
    page = render_outlines(compare_outlines(judge({"north": draw_run()["north"]})), outline_record())
    assert "Random effects:" not in page
    assert "By site, it was lowest" not in page
    assert "The models at east: it gave no test scores." in page


def test_everything_that_comes_from_outside_is_escaped() -> None:
    evil = '<script>alert("x")</script>&amp;'
    record = outline_record() | {"run": evil, "reason": evil, "state": evil, "started": evil}
    record["cohorts"] = {evil: record["cohorts"]["north"] | {"excluded": {evil: 3}}}
    record["refused"], record["left_out"] = {evil: evil}, {evil: evil}
    drawn = {evil: draw_run()["north"], "b": draw_run()["east"]}
    drawn = {site: ({**made, evil: made["federated"]}, names) for site, (made, names) in drawn.items()}
    page = render_outlines(compare_outlines(judge(drawn, (evil,))), record)
    assert "script" not in Reader(page).tags
    assert Reader(page).open == []


# Checklists


def test_checklists_answer_of_outlines_what_the_run_knows(comparison: OutlineComparison) -> None:
    claim, tripod = checklists(outline_record(), comparison)
    told = {row[0]: row[2] for row in claim.rows}
    assert [row[0] for row in claim.rows] == [str(n) for n in range(1, 45)]
    assert told["28"].startswith("Dice, NSD at 2 mm, HD95 and area error")
    assert EMPTY_MASKS in told["28"]
    assert "Wilcoxon" in told["29"]
    assert told["16"].startswith("The sites' own masks, from DICOM SEG and RTSTRUCT files")
    assert "a score for background and one for each structure out" in told["22"]
    assert told["8"].startswith("Images (CR or DX) with a mask that speaks of every structure")
    assert told["14"] == told["2"] == FOR_AUTHORS
    other = {row[0]: row[2] for row in tripod.rows}
    assert other["15"] == "For each pixel the likeliest of background and lesion; no threshold."
    assert other["23b"] == "By site, worst site, random effects over sites."
    for words in ("AUROC", "Brier", "label of the study", "score for each class", "called positive"):
        assert not any(words in answer for answer in (*told.values(), *other.values()))


def test_checklists_of_classifications_leave_annotations_to_the_authors_as_before() -> None:
    told = {row[0]: row[2] for row in checklists(draw_record(), compare(draw_judgement()))[0].rows}
    assert told["16"] == told["18"] == told["39"] == FOR_AUTHORS
    assert told["33"] == "None: every test site took part in training."


def test_a_site_that_trained_nothing_is_external(comparison: OutlineComparison) -> None:
    claim = checklists(outline_record() | {"without": ["south"]}, comparison)[0]
    assert {row[0]: row[2] for row in claim.rows}["33"] == "At south, which took no part in training."


# Model card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_outlined(tmp_path / "registry" / "cxr-lesion-1", judge(draw_run()))


def test_a_card_says_the_task_its_rules_and_every_value_with_its_interval(
    folder: Path, comparison: OutlineComparison
) -> None:
    card, model = card_of(folder, "federated"), comparison.model("federated")
    assert model is not None
    assert card["Model details"]["structures"] == ["lesion"]
    assert card["Model details"]["tolerance of NSD"] == "2 mm"
    assert card["Evaluation"]["empty masks"] == EMPTY_MASKS
    places = {"lesion, all sites: mean (95% CI)": model.pooled[0]}
    places |= {f"lesion at {site}: mean (95% CI)": found[0] for site, found in model.sites.items()}
    for head, result in places.items():
        told, (low, high) = card["Evaluation"][head], result.means["dice"].ci95 or (0, 0)
        assert told["Dice"].startswith(
            f"{number(result.means['dice'].value)} ({number(low)} to {number(high)}); "
            f"{result.cases['dice']} images of {result.patients['dice']} patients, median "
        )
        assert set(told) == {"Dice", "NSD", "HD95, mm", "Area error, mm²", "images outlined"}
    assert card["Evaluation"]["withheld"] == "nothing"
    assert (
        "random effects over 3 sites" in card["Evaluation"]["lesion, sites as a sample: mean Dice (95% CI)"]
    )
    assert "AUROC" not in json.dumps(card)


def test_what_the_run_of_a_segmentation_does_not_know_is_for_the_authors(folder: Path) -> None:
    card = card_of(folder, "federated")
    assert card["Intended use"]["users"] == FOR_AUTHORS
    assert card["Model details"]["licence"] == card["Model details"]["contact"] == FOR_AUTHORS
    assert card["Training data"]["patients' characteristics"] == FOR_AUTHORS
    assert card["Ethical considerations"]["ethics"] == FOR_AUTHORS


def test_a_cards_withheld_values_are_said(tmp_path: Path) -> None:
    folder = write_outlined(tmp_path / "run", judge(few_at_south()))
    card = card_of(folder, "local:north")
    assert card["Evaluation"]["withheld"] == [f"Withheld at south: HD95 of lesion (north alone). {WITHHELD}"]
    assert card["Evaluation"]["lesion at south: mean (95% CI)"]["HD95, mm"] == "withheld"
    assert set(card["Training data"]["cases"]) == {"north"}


def test_a_segmentations_model_that_was_not_judged_says_so(folder: Path) -> None:
    assert "not judged" in card_of(folder, "round-0001")["Evaluation"]["results"]


def test_the_card_command_writes_both_forms_of_a_segmentations_card(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "card.md"
    assert fedai(["model", "card", str(folder), "federated", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert json.loads(out.with_suffix(".json").read_text()) == told["card"]
    assert out.read_text() == markdown(told["card"])
    assert "- lesion at south: mean (95% CI):\n  - Dice: 0." in out.read_text()


# Crate


def test_a_crate_of_a_segmentation_has_report_numbers_and_card(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.zip"
    assert fedai(["run", "crate", str(folder), "--out", str(out)]) == 0
    with zipfile.ZipFile(out) as crate:
        files = {name: crate.read(name).decode() for name in crate.namelist()}
    made = {"record.json", "study.json", "judgement.json", "report.html", "numbers.csv", "model-card.md"}
    assert made | {"model-card.json"} < set(files)
    graph = {entity["@id"]: entity for entity in json.loads(files["ro-crate-metadata.json"])["@graph"]}
    assert graph["study.json"]["sha256"] == outline_study().sha256
    assert {part["@id"] for part in graph["./"]["hasPart"]} == set(files) - {"ro-crate-metadata.json"}
    assert json.loads(files["model-card.json"]) == json.loads(json.dumps(card_of(folder, "federated")))
    assert graph["./"]["keywords"] == "federated learning, segmentation, lesion"
    assert "How test images are spread" in files["report.html"]
    (dice,) = [
        line
        for line in files["numbers.csv"].splitlines()
        if line.startswith("federated,,pooled,lesion,dice,")
    ]
    rows = np.concatenate([made["federated"][0][:, 0, 0] for made, _ in draw_run().values()])
    assert float(dice.split(",")[5]) == pytest.approx(np.nanmean(rows))
    assert len(MEASURES) == 4


def test_no_patient_is_in_anything_that_is_written_of_a_segmentation(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "c.zip"
    assert fedai(["run", "crate", str(folder), "--out", str(out)]) == 0
    patients = {name for _, names in draw_run().values() for name in names}
    with zipfile.ZipFile(out) as crate:
        for name in crate.namelist():
            content = crate.read(name).decode()
            assert not [patient for patient in patients if patient in content]
