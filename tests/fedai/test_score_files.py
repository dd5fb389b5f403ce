from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from score_sites import draw_sites, write_csv

from fedai.errors import ConfigError
from fedai.score_files import read_score_files, site_names


def refused(*paths: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_score_files(paths)
    return str(caught.value)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    sites = draw_sites(1, 30, 20)
    read = read_score_files([write_csv(site, tmp_path) for site in sites])
    for ours, theirs in zip(read, sites, strict=True):
        assert (ours.site, ours.models, ours.patients) == (theirs.site, theirs.models, theirs.patients)
        np.testing.assert_array_equal(ours.scores, theirs.scores)
        np.testing.assert_array_equal(ours.positive, theirs.positive)
        assert (ours.numbers[:, None] == ours.numbers).tolist() == (
            theirs.numbers[:, None] == theirs.numbers
        ).tolist()


def test_columns_in_another_order_are_put_in_the_first_files_order(tmp_path: Path) -> None:
    one = written(tmp_path, "one.csv", "patient,label,a,b\np,1,0.5,2\nq,0,-1,3\n")
    two = written(tmp_path, "two.csv", "\ufeffb, label ,patient,a\n\n7,0.0,p,8\n9,1.0,p,1e3\n")
    first, second = read_score_files([one, two])
    assert first.models == second.models == ("a", "b")
    assert second.scores.tolist() == [[8, 7], [1000, 9]]
    assert second.positive.tolist() == [False, True]
    assert second.patients == 1


def test_all_problems_of_all_files_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    one = written(
        tmp_path,
        "one.csv",
        "patient,label,a,b\np,1,0.5,nan\n,0,inf,1\nq,2,,1\nr,,0.1,high\ns,1,0.1\nt,yes,1_0,NA\n",
    )
    two = written(tmp_path, "two.csv", 'patient,label,a,c\n"p\nq",1,1,2\nq,0,x,1\n')
    text = refused(one, two)
    for line in (
        f"{one}:2: b is not a finite number (NaN or infinite)",
        f"{one}:3: a is not a finite number (NaN or infinite)",
        f"{one}:3: has no patient",
        f"{one}:4: a is missing",
        f"{one}:4: label is not 0 or 1",
        f"{one}:5: b is not a number",
        f"{one}:5: label is missing",
        f"{one}:6: has 3 cells, not 4",
        f"{one}:7: a is not a number",
        f"{one}:7: b is missing",
        f"{one}:7: label is not 0 or 1",
        f"{two}:4: a is not a number",
        f"{one}:1: lacks c, which {two} has",
        f"{two}:1: lacks b, which {one} has",
    ):
        assert line in text
    assert "high" not in text
    assert "yes" not in text


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("patient,label,a,a", "column a is there 2 times"),
        ("patient,patient,label,a", "column patient is there 2 times"),
        ("patient,label,a,", "a column has no name"),
        ("id,label,a", "there is no column patient"),
        ("patient,a", "there is no column label"),
        ("patient,label", "no column of a model's scores"),
        ("patient;label;a", "is separated by semicolons, not by commas"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, header: str, told: str) -> None:
    row = ",".join("1" * (header.count(",") + 1))
    text = refused(written(tmp_path, "bad.csv", f"{header}\n{row}\n"))
    assert any("bad.csv:1: " in line and told in line for line in text.splitlines())


def test_files_that_are_no_tables_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"patient,label,a\n\xff\xfe,1,1\n")
    empty = written(tmp_path, "empty.csv", "")
    quoted = written(tmp_path, "quoted.csv", 'patient,label,a\n"p"q,1,1\n')
    no_rows = written(tmp_path, "rows.csv", "patient,label,a\n")
    text = refused(tmp_path / "none.csv", tmp_path / "bytes.csv", empty, quoted, no_rows, tmp_path)
    for told in ("No such file", "not UTF-8", "is empty", "is not CSV", "has no rows", "Is a directory"):
        assert told in text


def test_line_ends_of_any_system_and_odd_characters_in_names_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_bytes("patient,label,a\r\np\u2028q,1,0.5\rp\x0bq,0,1\n".encode())
    (site,) = read_score_files([path])
    assert (site.patients, site.scores.tolist()) == (2, [[0.5], [1.0]])


def test_a_file_given_twice_or_copied_is_refused(tmp_path: Path) -> None:
    one = written(tmp_path, "one.csv", "patient,label,a\np,1,0.5\n")
    copy = written(tmp_path, "copy.csv", one.read_text(encoding="utf-8"))
    assert "holds the same rows as" in refused(one, one)
    assert f"{copy}: holds the same rows as {one}" in refused(one, copy)


def test_many_problems_are_counted_after_the_first_thirty(tmp_path: Path) -> None:
    rows = "".join(f"p{i},1,nan\n" for i in range(100))
    assert "and 70 more" in refused(written(tmp_path, "many.csv", f"patient,label,a\n{rows}"))


def test_sites_are_named_by_as_much_of_the_path_as_it_takes() -> None:
    assert site_names([Path("a/north.csv"), Path("b/south.csv")]) == ["north", "south"]
    assert site_names([Path("north/scores.csv"), Path("south/scores.csv")]) == [
        "north/scores",
        "south/scores",
    ]


@pytest.mark.parametrize(("mark", "word"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_file_separated_otherwise_is_told_once_however_many_rows(
    tmp_path: Path, mark: str, word: str
) -> None:
    rows = "".join(f"p{number}{mark}1{mark}0,{number}\n" for number in range(40))
    text = refused(written(tmp_path, "north.csv", f"patient{mark}label{mark}a\n{rows}"))
    assert [line for line in text.splitlines() if "north.csv" in line] == [
        f"  {tmp_path}/north.csv:1: is separated by {word}, not by commas: save it as CSV with commas and "
        "decimal points (columns: patient, label (0 or 1), then one per model, the same in each site's file)"
    ]
