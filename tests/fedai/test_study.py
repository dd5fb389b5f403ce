from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import SMALL, merged, small_study

from fedai.errors import ConfigError
from fedai.study import Study, parse_study, read_study
from fedai.yamlfile import FileProblems, load, parse

ROOT = Path(__file__).parents[2]
TEN = Path(__file__).parent / "ten_mistakes.yaml"
TOLD = [
    "2:7: name: names are lower-case letters, digits and hyphens",
    "3:10: version: input should be greater than or equal to 1",
    "6:12: task.classes: named twice: clear",
    "9:3: cohort.modalities: no such key (did you mean 'modality'?)",
    "11:20: preprocessing.image_size[1]: input should be greater than or equal to 16",
    "13:9: network.name: there is no 'ResNext' here (did you mean 'ResNet'?)",
    "15:11: training.rounds: input should be a valid integer",
    "16:43: training.optimizer.learning_rate: input should be greater than 0",
    "18:24: training.augmentation[0].probabilty: no such key (did you mean 'probability'?)",
    "20:11: rounds.quorum: quorum is 3, but only 2 sites are named",
]


def test_a_study_with_ten_mistakes_names_each_with_its_place_and_hint() -> None:
    with pytest.raises(FileProblems) as caught:
        read_study(TEN)
    shown = [problem.show(str(TEN)) for problem in caught.value.problems]
    for line, told in zip(shown, TOLD, strict=True):
        assert line.startswith(f"{TEN}:{told}")
        assert line in caught.value.message


def test_every_file_under_configs_loads() -> None:
    from fedai_server.home import Settings
    from fedai_site.home import SiteSettings
    from fedai_site.policy import Policy

    models = {"studies": Study, "sites": SiteSettings, "server": Settings, "policies": Policy}
    files = [path for path in (ROOT / "configs").rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(models)
    for path in files:
        load(path, models[path.parent.name])


def test_the_demos_study_loads() -> None:
    assert read_study(ROOT / "fedai" / "demo" / "study.yaml").sites == ("north", "east", "south")


def test_the_studys_sites_have_their_files() -> None:
    study = read_study(ROOT / "configs" / "studies" / "cxr-nodule.yaml")
    assert {path.stem for path in (ROOT / "configs" / "sites").iterdir()} == set(study.sites)


def shuffled(data: Any, rng: random.Random) -> Any:
    if isinstance(data, dict):
        keys = list(data)
        rng.shuffle(keys)
        return {key: shuffled(data[key], rng) for key in keys}
    return [shuffled(item, rng) for item in data] if isinstance(data, list) else data


@given(st.randoms(use_true_random=False), st.booleans(), st.integers(2, 8))
def test_comments_order_and_layout_do_not_change_the_hash(
    rng: random.Random, flow: bool, indent: int
) -> None:
    text = yaml.safe_dump(shuffled(SMALL, rng), sort_keys=False, default_flow_style=flow, indent=indent)
    noisy = "# a comment\n" + text.replace("\n", "   # and another\n", 1)
    assert parse(noisy.encode(), Study, "s.yaml").sha256 == small_study().sha256


def test_a_default_that_is_written_out_does_not_change_the_hash() -> None:
    whole = yaml.safe_dump(small_study().model_dump(mode="json"))
    assert parse(whole.encode(), Study, "s.yaml").sha256 == small_study().sha256


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(data, dict | list):
        items = data.items() if isinstance(data, dict) else enumerate(data)
        for key, value in items:
            yield from leaves(value, (*path, key))
    else:
        yield path


WHOLE = small_study(
    training={
        "rounds": 9,
        "early_stopping": {"patience": 2, "min_delta": 0.1},
        "augmentation": [
            {"name": "RandFlip"},
            {"name": "RandAffine"},
            {"name": "RandScaleIntensity"},
            {"name": "RandGaussianNoise"},
        ],
    },
    cohort={
        "body_part": ["CHEST"],
        "manufacturer": ["GE"],
        "age_years": {"at_least": 18, "at_most": 80},
        "study_years": {"at_least": 2015, "at_most": 2020},
        "slice_thickness_mm": {"at_least": 1.0, "at_most": 5.0},
    },
    data_use={"use": "HMB", "commercial": True, "not_for_profit": False, "methods": True, "users": ["kim"]},
).model_dump(mode="json")
LEAVES = sorted(leaves(WHOLE), key=str)
FIXED = {
    ("task", "kind"),
    ("strategy", "name"),
    ("rounds", "selection", "by"),
    ("rounds", "selection", "fraction"),
    ("rounds", "selection", "number"),
}  # one value is possible as yet, or only together with another
OTHER = {
    ("network", "name"): None,
    ("training", "optimizer", "name"): None,
    ("network", "normalization"): "instance",
    ("network", "block"): "bottleneck",
    ("network", "act"): "gelu",
    ("training", "learning_rate_schedule"): "cosine",
    ("training", "checkpoint", "choose"): "best",
    ("training", "checkpoint", "by"): "validation_auroc",
    ("rounds", "quorum"): 3,
    ("data_use", "use"): "GRU",
    ("cohort", "manufacturer", 0): "SIEMENS",
    ("cohort", "modality", 0): "DX",
}  # None: another name has other keys, so the whole block changes


def changed(path: tuple[Any, ...], amount: int) -> dict[str, Any] | None:
    """The whole study with one leaf changed by a little."""
    data = merged(WHOLE, {})
    place = data
    for step in path[:-1]:
        place = place[step]
    before = place[path[-1]]
    if path in OTHER:
        if OTHER[path] is None:
            return None
        place[path[-1]] = OTHER[path]
    elif isinstance(before, bool):
        place[path[-1]] = not before
    elif isinstance(before, int):
        place[path[-1]] = before + amount
    elif isinstance(before, float):
        place[path[-1]] = before + amount * 1e-6 if before < 50 else before - amount * 1e-6
    elif before is None:
        place[path[-1]] = 0.01 * amount
    elif path[-1] == "axis":
        place[path[-1]] = "vertical"
    elif (path[-1] == "name" and "augmentation" in path) or (path[-1] == "name" and "loss" in path):
        return None
    else:
        place[path[-1]] = before + ("X" if path[0] == "cohort" else "x") * amount
    return data


@given(st.sampled_from([path for path in LEAVES if path not in FIXED]), st.integers(1, 3))
@settings(max_examples=300)
def test_any_changed_value_changes_the_hash(path: tuple[Any, ...], amount: int) -> None:
    data = changed(path, amount)
    if data is None:
        return
    assert Study.model_validate(data).sha256 != Study.model_validate(WHOLE).sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"name": "DenseNet121"}},
        {"training": {"optimizer": {"name": "SGD"}}},
        {"training": {"loss": {"name": "Focal"}}},
        {"training": {"learning_rate_schedule": "cosine"}},
        {"sites": ["east", "north", "south"]},
        {"task": {"classes": ["nodule", "clear"]}},
    ],
)
def test_another_choice_or_another_order_changes_the_hash(changes: dict[str, Any]) -> None:
    base = {key: value for key, value in SMALL.items() if key not in changes or key != "network"}
    assert Study.model_validate(merged(base, changes)).sha256 != small_study().sha256


@given(st.text(min_size=1, max_size=30), st.floats(1e-300, 1, exclude_min=True), st.integers(1, 10**9))
def test_a_study_travels_unchanged_as_its_canonical_text(purpose: str, rate: float, version: int) -> None:
    study = small_study(
        purpose=purpose, version=version, training={"optimizer": {"name": "AdamW", "learning_rate": rate}}
    )
    again = parse_study(study.canonical())
    assert again == study
    assert again.sha256 == study.sha256


def hash_of(text: str) -> str:
    """The hash of a travelled study, or nothing where it is refused."""
    try:
        return parse_study(text).sha256
    except ConfigError:
        return ""


@given(st.integers(0, len(small_study().canonical()) - 1), st.characters(codec="utf-8"))
def test_a_travelled_study_is_refused_or_another_when_one_character_differs(
    place: int, character: str
) -> None:
    text = small_study().canonical()
    other = text[:place] + character + text[place + 1 :]
    assert other == text or hash_of(other) != small_study().sha256


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", "\x00", "[" * 100_000, '{"name": "x"}', "name: x"])
def test_what_is_no_study_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the run's study is not a study of this release"):
        parse_study(text, "the run's study")


def test_a_study_is_frozen_in_every_part() -> None:
    study = small_study()
    with pytest.raises(ValueError, match="frozen"):
        study.training.seed = 9  # type: ignore[misc]


@pytest.mark.parametrize("name", ["Nodule", "1st", "a_b", "a b", "", "-a", "a" * 42, "../a", "é", "a\n"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ValueError, match="names are lower-case"):
        small_study(name=name)
    with pytest.raises(ValueError, match="names are lower-case"):
        small_study(sites=["north", "east", name])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, 0])
def test_a_deadline_is_a_time(value: float) -> None:
    with pytest.raises(ValueError, match="deadline_s"):
        small_study(rounds={"deadline_s": value})


@pytest.mark.parametrize(
    "changes",
    [
        {"network": {"_target_": "os.system"}},
        {"network": {"name": "os.system"}},
        {"network": {"name": "monai.networks.nets.ResNet"}},
        {"network": {"name": "(installed)", "arguments": {}}},
        {"network": {"name": "installed", "arguments": {}}},
        {"network": {"act": "os.system"}},
        {"network": {"path": "x.py"}},
        {"training": {"loss": {"name": "torch.nn.MSELoss"}}},
        {"training": {"optimizer": {"name": "AdamW", "_target_": "os.system"}}},
        {"training": {"augmentation": [{"name": "eval", "code": "1"}]}},
        {"training": {"augmentation": [{"_target_": "monai.transforms.Lambda"}]}},
        {"strategy": {"name": "subprocess.run"}},
        {"_target_": "os.system"},
        {"imports": ["os"]},
    ],
)
def test_no_class_or_module_can_be_named_anywhere(changes: dict[str, Any]) -> None:
    text = yaml.safe_dump(merged(SMALL, changes))
    with pytest.raises(FileProblems):
        parse(text.encode(), Study, "s.yaml")


def test_a_rule_over_two_keys_is_told_once() -> None:
    with pytest.raises(FileProblems) as caught:
        parse(yaml.safe_dump(merged(SMALL, {"rounds": {"quorum": 9}})).encode(), Study, "s.yaml")
    assert [problem.path for problem in caught.value.problems] == ["rounds.quorum"]


def test_what_the_researchers_page_says_of_the_judgement_is_read() -> None:
    page = (ROOT / "docs" / "researcher.md").read_text(encoding="utf-8")
    block = re.search(r"^```yaml\n(judgement:.*?)^```", page, re.M | re.S)
    assert block
    study = Study.model_validate(merged(SMALL, yaml.safe_load(block[1])))
    assert (study.judgement.net_benefit_at, study.judgement.margin) == ((0.05, 0.1, 0.2), 0.05)


def test_a_study_without_new_keys_of_the_judgement_keeps_its_hash() -> None:
    """Approvals are of hashes; a new release must not end them."""
    plain = small_study()
    assert not {"decision_thresholds", "margin"} & set(json.loads(plain.canonical())["judgement"])
    for change in ({"margin": 0.05}, {"decision_thresholds": [0.1, 0.2]}):
        assert small_study(judgement=change).sha256 != plain.sha256
    assert parse_study(small_study(judgement={"margin": 0.05}).canonical()).judgement.margin == 0.05


def test_a_study_without_filters_keeps_its_hash_and_each_filter_gives_another() -> None:
    plain = small_study()
    assert json.loads(plain.canonical())["cohort"].keys() == {"modality", "minimum_patients"}
    filters: list[dict[str, Any]] = [
        {"body_part": ["CHEST"]},
        {"manufacturer": ["GE"]},
        {"age_years": {"at_least": 18}},
        {"study_years": {"at_most": 2020}},
        {"slice_thickness_mm": {"at_most": 2.5}},
    ]
    hashes = {small_study(cohort=change).sha256 for change in filters}
    assert len(hashes | {plain.sha256}) == len(filters) + 1
    study = small_study(cohort=filters[2])
    assert parse_study(study.canonical()) == study


def test_all_that_is_wrong_with_filters_is_told_with_its_place() -> None:
    wrong = {
        "manufacturer": ["SIEMNS"],
        "body_part": ["chest"],
        "age_years": {"at_least": 60, "at_most": 18},
        "study_years": {"from": 2015},
        "slice_thickness_mm": {"at_least": -1},
    }
    with pytest.raises(FileProblems) as caught:
        parse(yaml.safe_dump(merged(SMALL, {"cohort": wrong})).encode(), Study, "s.yaml")
    assert {problem.path for problem in caught.value.problems} == {
        "cohort.manufacturer[0]",
        "cohort.body_part[0]",
        "cohort.age_years.at_least",
        "cohort.study_years.from",
        "cohort.slice_thickness_mm.at_least",
    }


@pytest.mark.parametrize(
    ("wrong", "near"), [("XX", "XA"), ("ct", "CT"), ("MRI", "MR"), ("???", "such as CR")]
)
def test_a_modality_that_dicom_does_not_know_is_refused_with_those_near_it(wrong: str, near: str) -> None:
    with pytest.raises(FileProblems) as caught:
        parse(
            yaml.safe_dump(merged(SMALL, {"cohort": {"modality": ["CR", wrong]}})).encode(), Study, "s.yaml"
        )
    (problem,) = caught.value.problems
    assert problem.path == "cohort.modality[1]"
    assert problem.text.startswith(f"no DICOM modality is called {wrong} (PS3.3 C.7.3.1.1.1)")
    assert near in problem.text


def test_retired_modalities_of_old_archives_may_be_asked_for() -> None:
    assert small_study(cohort={"modality": ["CR", "MA", "M3D"]}).cohort.modality == ("CR", "MA", "M3D")


def test_what_the_coordinators_page_says_of_the_cohort_is_read() -> None:
    page = (ROOT / "docs" / "coordinator.md").read_text(encoding="utf-8")
    block = re.search(r"^```yaml\n(cohort:.*?)^```", page, re.M | re.S)
    assert block
    cohort = Study.model_validate(merged(SMALL, yaml.safe_load(block[1]))).cohort
    assert cohort.age_years is not None
    assert (cohort.manufacturer, cohort.age_years.at_least) == (("SIEMENS", "GE"), 18)
