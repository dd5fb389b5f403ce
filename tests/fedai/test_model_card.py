from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import draw_judgement, draw_record
from studies import small_study

from fedai.cli.app import run
from fedai.compare import compare
from fedai.errors import ConfigError
from fedai.model_card import card_of, markdown
from fedai.tables import spell


def drawn() -> dict[str, Any]:
    """A record with a whole study in it, as a server writes it."""
    record = draw_record()
    versions = dict.fromkeys(record["cohorts"], record["versions"])
    return {**record, "study": json.loads(small_study().canonical()), "versions": versions}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder: record, judgement, and weights that nobody opens."""
    record, judgement = drawn(), draw_judgement()
    for place in ("round-0001", "round-0005", "local-north"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "weights.safetensors").write_bytes(place.encode())
    (tmp_path / "record.json").write_text(json.dumps(record))
    (tmp_path / "judgement.json").write_text(json.dumps(judgement.to_json()))
    return tmp_path


def test_the_card_says_what_the_comparison_says(folder: Path) -> None:
    card = card_of(folder, "federated")
    model = compare(draw_judgement()).model("federated")
    assert model is not None
    assert card["Evaluation"]["AUROC, all sites (95% CI)"] == spell(model.pooled.auroc)
    assert card["Evaluation"]["AUROC by site (95% CI)"] == {
        site: spell(found.auroc) for site, found in model.sites.items()
    }
    assert card["Model details"]["study sha256"] == drawn()["study_hash"]
    assert set(card["Training data"]["cases"]) == set(drawn()["cohorts"])


def test_a_local_model_learned_from_its_own_site_alone(folder: Path) -> None:
    assert set(card_of(folder, "local:north")["Training data"]["cases"]) == {"north"}


def test_a_model_that_was_not_judged_says_so(folder: Path) -> None:
    assert "not judged" in card_of(folder, "round-0001")["Evaluation"]["results"]


def test_a_model_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no model"):
        card_of(folder, "nobody")


def test_what_the_run_does_not_know_is_for_the_authors(folder: Path) -> None:
    assert card_of(folder, "federated")["Model details"]["licence"] == "for the authors"


def test_nothing_in_a_study_becomes_markup_of_the_card(folder: Path) -> None:
    record = drawn()
    record["study"]["purpose"] = "<script>alert(1)</script>\n# no head\n[a](javascript:x)"
    (folder / "record.json").write_text(json.dumps(record))
    text = markdown(card_of(folder, "federated"))
    assert "<script>" not in text
    assert "\n# no head" not in text
    assert "[a](" not in text


def test_the_command_writes_both_forms(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["model", "card", str(folder), "federated", "--out", str(tmp_path / "card.md"), "--json"]
    assert run(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "card.json").read_text()) == told["card"]
    assert (tmp_path / "card.md").read_text().startswith("# federated of ")
    assert run(words) == 2
    assert "card.md is there already" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert run([*words, "--force"]) == 0
