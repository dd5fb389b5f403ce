from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from federations import Cases, judgement_of, raw_auroc
from runs import LEVELS, SITES, SIX, draw_record, draw_sites, draw_with_subgroups, level_in, of_level
from studies import small_study

from fedai.compare import compare
from fedai.errors import ConfigError, FederationError
from fedai.joining import join
from fedai.judgement import Judgement
from fedai.long_table import as_csv
from fedai.report import render
from fedai.study import Study, parse_study
from fedai.subgroup_results import subgroups_of, worst_subgroup
from fedai.subgroup_tables import subgroup_tables, subgroups_section
from fedai.subgroups import (
    VARIABLES,
    Subgroup,
    level_of,
    levels_of,
    read_subgroups,
    subgroup_arrays,
    subgroup_forms,
)

ASKED = {"sex": "F", "age_years": 59, "manufacturer": "GE"}


def within_sites(sites: dict[str, Cases], model: str, variable: str, level: str, k: int = 1) -> float:
    """AUROC over all pairs of the same site, by raw scores."""
    won = pairs = 0.0
    for cases in sites.values():
        of = of_level(cases, variable, level)
        scores, positive = cases.scores[model][of][:, k], cases.labels[of] == k
        number = positive.sum() * (~positive).sum()
        won += number * raw_auroc(scores, positive) if number else 0.0
        pairs += number
    return won / pairs


def test_an_image_is_in_the_band_of_its_age_and_of_a_maker_on_the_list() -> None:
    assert levels_of("age_band", (40, 60, 80)) == ("under 40", "40 to 59", "60 to 79", "80 and older")
    ages = {39: "under 40", 40: "40 to 59", 59: "40 to 59", 60: "60 to 79", 90: "80 and older", None: ""}
    for years, band in ages.items():
        assert level_of("age_band", (40, 60, 80), **{**ASKED, "age_years": years}) == band
    assert level_of("sex", (), **{**ASKED, "sex": "M"}) == "male"
    assert level_of("sex", (), **{**ASKED, "sex": ""}) == ""
    assert level_of("manufacturer", (), **ASKED) == "GE"
    assert level_of("manufacturer", (), **{**ASKED, "manufacturer": ""}) == "other"


def test_a_study_without_subgroups_reads_as_it_did_before_there_were_any() -> None:
    plain = json.loads(small_study().canonical())["judgement"]
    assert set(plain) == {"threshold", "local_models"}
    asking = small_study(judgement={"subgroups": ["sex"]})
    assert json.loads(asking.canonical())["judgement"]["subgroups"] == ["sex"]
    assert asking.sha256 != small_study().sha256
    ages = small_study(judgement={"subgroups": ["age_band"]})
    assert json.loads(ages.canonical())["judgement"]["age_bands"] == [40, 60, 80]
    for study in (asking, ages, small_study(judgement={"age_bands": [50]})):
        assert parse_study(study.canonical()) == study


@pytest.mark.parametrize(
    "judgement",
    [{"subgroups": ["race"]}, {"subgroups": ["sex", "sex"]}, {"age_bands": [60, 40]}, {"age_bands": []},
     {"age_bands": [0, 40]}, {"age_bands": [95]}],
)  # fmt: skip
def test_subgroups_are_of_a_closed_list_and_ages_rise(judgement: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="judgement"):
        Study.model_validate({**json.loads(small_study().canonical()), "judgement": judgement})


@pytest.mark.parametrize("classes", [("normal", "nodule"), SIX])
def test_what_is_told_of_subgroups_has_the_form_of_the_wire_and_comes_back_as_it_was(
    classes: tuple[str, ...],
) -> None:
    cases, k = draw_sites(classes)["north"], 1 if len(classes) == 2 else len(classes)
    told = [Subgroup.of(cases.scores["federated"], cases.labels, cases.patients, 0.5)] * 2
    arrays = subgroup_arrays(told)
    forms = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    assert forms == subgroup_forms(2, k)
    for one, two in zip(told, read_subgroups(arrays, 2, 0.5), strict=True):
        assert all(np.array_equal(a, two.to_arrays()[name]) for name, a in one.to_arrays().items())


def test_a_subgroup_whose_parts_contradict_each_other_is_refused() -> None:
    cases = draw_sites()["north"]
    arrays = Subgroup.of(cases.scores["federated"], cases.labels, cases.patients, 0.5).to_arrays()
    with pytest.raises(FederationError, match="differ in their numbers"):
        Subgroup.from_arrays({**arrays, "placement_cases": arrays["placement_cases"] + 1}, 0.5)


@pytest.mark.parametrize("classes", [("normal", "nodule"), SIX])
def test_aurocs_are_those_of_the_pairs_within_sites(classes: tuple[str, ...]) -> None:
    sites, comparison = draw_sites(classes), compare(draw_with_subgroups(classes))
    first = 1 if len(classes) == 2 else 0
    found = subgroups_of(comparison, "sex", "federated")
    assert list(found) == ["", "female", "male"], "all cases first; nobody is of another sex"
    for level in ("female", "male"):
        for k, told in enumerate(found[level].classes, start=first):
            value = within_sites(sites, "federated", "sex", level, k)
            assert told.auroc.value == pytest.approx(value, abs=0.003), "4,096 bins"
        values = [c.auroc.value for c in found[level].classes]
        assert found[level].auroc.value == pytest.approx(np.mean(values))
    assert found["female"].sites == SITES
    assert subgroups_of(comparison, "age_band", "federated")["under 60"].sites == ("north", "east")


def test_at_one_site_a_subgroup_has_the_interval_that_its_cases_alone_would_have() -> None:
    cases = draw_sites(patients=90)["north"]
    of = of_level(cases, "sex", "female")
    names = np.array(cases.patients)[of].tolist()
    alone = Cases({m: s[of] for m, s in cases.scores.items()}, cases.labels[of], names)
    expected = compare(judgement_of({"north": alone}, ("normal", "nodule"))).models[0].pooled
    whole = judgement_of({"north": cases}, ("normal", "nodule"))
    told = {m: (Subgroup.of(s, alone.labels, names, 0.5),) for m, s in alone.scores.items()}
    judged = replace(whole, levels={"sex": ("female",)}, subgroups={"north": told})
    found = subgroups_of(compare(judged), "sex", "federated")["female"]
    assert (found.cases, found.patients) == (expected.cases, expected.patients)
    assert found.auroc.value == pytest.approx(expected.auroc.value, abs=1e-12)
    assert found.auroc.ci95 == pytest.approx(expected.auroc.ci95, abs=1e-9)
    assert found.classes[0].sensitivity == expected.classes[0].sensitivity
    assert found.classes[0].specificity == expected.classes[0].specificity


def test_too_few_patients_have_a_value_and_no_interval() -> None:
    few = compare(draw_with_subgroups(patients=6))
    found = subgroups_of(few, "age_band", "federated")
    small = [
        s for s in found.values() if min(s.classes[0].positive_patients, s.classes[0].negative_patients) < 10
    ]
    assert small
    assert all(s.auroc.ci95 is None or s.auroc.value in (0.0, 1.0) for s in small)


def test_a_judgement_with_subgroups_is_kept_and_read_again() -> None:
    judgement = draw_with_subgroups()
    again = Judgement.from_json(json.loads(json.dumps(judgement.to_json())))
    assert again.to_json() == judgement.to_json()
    assert compare(again).to_json() == compare(judgement).to_json()


def test_a_judgement_whose_subgroups_are_not_those_of_its_models_is_refused() -> None:
    whole = draw_with_subgroups().to_json()
    del whole["subgroups"]["north"]["federated"]
    with pytest.raises(ConfigError, match="not a judgement"):
        Judgement.from_json(whole)


def test_joined_runs_keep_the_subgroups_that_both_were_asked_for() -> None:
    one = draw_with_subgroups()
    both = compare(join({"a": one, "b": one}))
    assert (
        subgroups_of(both, "sex", "b/federated")["male"].cases
        == subgroups_of(compare(one), "sex", "federated")["male"].cases
    )
    assert compare(join({"a": one, "b": replace(one, levels={}, subgroups={})})).subgroups == ()


def test_the_worst_subgroup_is_named_in_tables_and_report() -> None:
    comparison = compare(draw_with_subgroups())
    found = subgroups_of(comparison, "sex", "federated")
    lowest = worst_subgroup(found)
    assert lowest is not None
    values = {level: s.auroc.value for level, s in found.items() if level}
    assert lowest[0] == min(values, key=lambda level: values[level] or 0.0)
    tables = subgroup_tables(comparison)
    assert [table.title[:8] for table in tables] == ["By sex: ", "By sex: ", "By age i", "By age i"]
    assert tables[0].rows[-1][0] == "Worst subgroup"
    assert tables[0].rows[-1][4].startswith(f"{lowest[0]}: ")
    record = draw_record()
    record["study"]["judgement"] = {"subgroups": list(VARIABLES)}
    page = render(record, comparison, draw_with_subgroups())
    assert f"By sex, Federated was lowest for {lowest[0]}" in page
    assert "No site tells of any subgroup by maker of the scanner." in page
    assert "Of subgroups of the test patients" in page
    assert "Subgroups, such as sex" not in page


def test_a_report_of_a_run_without_subgroups_has_no_such_section() -> None:
    plain = replace(draw_with_subgroups(), levels={}, subgroups={})
    assert subgroups_section(compare(plain)) == ""
    assert "Subgroups, such as sex" in render(draw_record(), compare(plain), plain)


def test_every_number_is_in_json_and_in_the_long_table() -> None:
    comparison = compare(draw_with_subgroups())
    told = comparison.to_json()["subgroups"]
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    for one in told:
        where = f"{one['variable']}={one['level'] or 'all'}"
        (row,) = [
            r for r in rows
            if (r["model"], r["cases_of"], r["measure"]) == (one["model"], where, "auroc within sites")
        ]  # fmt: skip
        assert float(row["value"]) == one["auroc_within_sites"]
    assert {one["level"] for one in told if one["variable"] == "sex"} == {None, "female", "male"}
    assert {level_in("sex", "north-0"), level_in("sex", "north-1")} < set(LEVELS["sex"])
