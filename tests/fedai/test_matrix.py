from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from runs import SITES, SIX, draw_judgement

from fedai.cli.app import run as fedai
from fedai.compare import compare
from fedai.matrix import is_own, matrix_of, shade, table_of
from fedai.performance_figures import heat_map
from fedai.results import POOLED
from fedai.tables import number


@pytest.mark.parametrize("classes", [("normal", "nodule"), SIX])
def test_the_matrix_holds_each_model_at_each_site_local_ones_first(classes: tuple[str, ...]) -> None:
    comparison = compare(draw_judgement(classes))
    matrix = matrix_of(comparison)
    assert matrix.tested == (*SITES, POOLED)
    assert matrix.trained == (*(f"local:{site}" for site in SITES), "federated", "centralised")
    for name, cells in zip(matrix.trained, matrix.cells, strict=True):
        model = comparison.model(name)
        assert model is not None
        assert list(cells) == [*(model.sites[s].auroc for s in SITES), model.pooled.auroc]


def test_its_json_and_table_say_the_same() -> None:
    matrix = matrix_of(compare(draw_judgement()))
    told, table = matrix.to_json(), table_of(matrix)
    assert told["tested_at"] == [*SITES, POOLED]
    for row, line in zip(told["rows"], table.rows, strict=True):
        assert row["model"] == line[0]
        for value, text, site in zip(row["values"], line[1:], matrix.tested, strict=True):
            assert number(value) in text
            assert text.startswith("[") == is_own(row["model"], site)


def test_its_picture_holds_every_number_and_a_frame_for_each_own_site() -> None:
    matrix = matrix_of(compare(draw_judgement()))
    picture = heat_map(matrix)
    words = [e.text for e in ET.fromstring(picture).iter("text")]  # noqa: S314
    for cells in matrix.cells:
        assert all(number(cell.value) in words for cell in cells)
    assert picture.count("#3a3a3a") == len(SITES)


def test_shades_go_from_white_to_blue() -> None:
    assert shade(0.5) == shade(0.2) == "#ffffff"
    assert shade(1.0) == "#5c98d6"
    assert shade(None) not in (shade(0.0), shade(1.0))


def test_the_command_gives_numbers_for_programs_and_a_table_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, judgement = tmp_path / "registry" / "cxr-1", draw_judgement()
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"run": "cxr-1", "state": "finished"}))
    (folder / "judgement.json").write_text(json.dumps(judgement.to_json()))
    assert fedai(["run", "matrix", "cxr-1", "--home", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tested_at"] == [*SITES, POOLED]
    own = judgement.scores["north"]["local:north"].histogram.auroc()[0]
    assert told["rows"][0]["model"] == "local:north"
    assert told["rows"][0]["values"][0] == pytest.approx(own)
    assert fedai(["run", "matrix", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "at north" in printed
    assert f"[{own:.3f}" in printed
