from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from fedai import yamlfile
from fedai.errors import ConfigError
from fedai.yamlfile import FileProblems, Frozen, load, parse

CONFIGS = Path(__file__).parents[2] / "configs"


class Cat(Frozen):
    name: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)] = 9


class Dog(Frozen):
    name: Literal["dog"]
    tricks: tuple[str, ...] = ()


class House(Frozen):
    street: str
    number: int = 1
    rent: float = 0.0
    pet: Annotated[Cat | Dog, Field(discriminator="name")] | None = None


def problems(text: str) -> list[str]:
    with pytest.raises(FileProblems) as caught:
        parse(text.encode(), House, "h.yaml")
    return [problem.show("h.yaml") for problem in caught.value.problems]


def test_a_sound_file_becomes_a_frozen_model() -> None:
    house = parse(b"street: Elm\npet: {name: cat, lives: 7}\n", House, "h.yaml")
    assert house == House(street="Elm", pet=Cat(name="cat", lives=7))
    with pytest.raises(ValueError, match="frozen"):
        house.number = 3  # type: ignore[misc]


def test_every_problem_is_told_at_once_in_the_order_of_the_lines() -> None:
    assert problems("number: x\nstreet: 5\npet:\n  name: cow\nrent: .nan\n") == [
        "h.yaml:1:9: number: input should be a valid integer, unable to parse string as an integer",
        'h.yaml:2:9: street: input should be a valid string (quote it: "5")',
        "h.yaml:4:9: pet.name: there is no 'cow' here (known here: cat, dog)",
        "h.yaml:5:7: rent: input should be a finite number",
    ]


def test_what_hides_its_meaning_is_told_together_with_what_is_wrong_otherwise() -> None:
    text = "number: 0x10\nstreet: 5\n7: x\npet: {name: 0o7, lives: 3, lives: 4}\nrent: &r .nan\nrnt: *r\n"
    assert [problem.split(" (")[0] for problem in problems(text)] == [
        "h.yaml:1:9: number: 0x10 is no plain number",
        "h.yaml:2:9: street: input should be a valid string",
        "h.yaml:3:1: keys must be plain words",
        "h.yaml:4:13: pet.name: there is no '0o7' here",
        "h.yaml:4:28: pet.lives: this key stands here twice",
        "h.yaml:5:7: rent: input should be a finite number",
        "h.yaml:5:7: rnt: aliases",
        "h.yaml:6:1: rnt: no such key",
    ]


def test_an_odd_first_key_hides_no_missing_one() -> None:
    assert [problem.split(" (")[0] for problem in problems("7: x\n")] == [
        "h.yaml:1:1: keys must be plain words",
        "h.yaml:1:1: street: is missing",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("street: Elm\nnumbr: 3\n", "2:1: numbr: no such key (did you mean 'number'?)"),
        ("street: Elm\npet: {name: cat, live: 3}\n", "2:18: pet.live: no such key (did you mean 'lives'?)"),
        ("number: 3\n", "1:1: street: is missing (add it)"),
        ("street: Elm\npet: {lives: 3}\n", "2:6: pet.name: is missing (add it)"),
        ("street: Elm\npet: {name: dgo}\n", "2:13: pet.name: there is no 'dgo' here (did you mean 'dog'?)"),
        ("street: Elm\npet: cat\n", "2:6: pet: expected keys and values (write `key: value` lines below it)"),
        ("street: no\n", '1:9: street: input should be a valid string (quote it: "no")'),
        ("street: Elm\npet: {name: dog, tricks: [sit, 7]}\n", "2:32: pet.tricks[1]: input should be a valid"),
        ("- a\n- b\n", "1:1: expected keys and values"),
        ("", "1:1: expected keys and values"),
        ("street: Elm\n  number: 3\n", "2:9: not valid YAML"),
        ("street: Elm\n---\nstreet: Oak\n", "2:1: not valid YAML"),
    ],
)
def test_a_problem_has_its_place_and_a_hint(text: str, told: str) -> None:
    (only,) = problems(text)
    assert only.startswith(f"h.yaml:{told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("street: &s Elm\npet: {name: *s}\n", "aliases (&, *) are not allowed"),
        ("street: &s [*s]\n", "aliases (&, *) are not allowed"),
        ("street: Elm\nstreet: Oak\n", "this key stands here twice"),
        ("street: Elm\npet: {name: cat, lives: 1, lives: 9}\n", "this key stands here twice"),
        ("street: Elm\n<<: {number: 3}\n", "keys must be plain words"),
        ("street: Elm\n[a]: 3\n", "keys must be plain words"),
        ("street: Elm\n1: 3\n", "keys must be plain words"),
        ("street: Elm\n? !!python/name:os.system\n: 1\n", "keys must be plain words"),
        ("street: !!python/object/apply:os.system [ls]\n", "python/object/apply:os.system is not allowed"),
        ("street: !!python/name:os.system ''\n", "python/name:os.system is not allowed"),
        ("street: !Ref x\n", "the tag !Ref is not allowed"),
        ("street: !!binary aGk=\n", "the tag tag:yaml.org,2002:binary is not allowed"),
        ("number: !!int abc\n", "the tag tag:yaml.org,2002:int is not allowed"),
        ("street: !!set {a, b}\n", "the tag tag:yaml.org,2002:set is not allowed"),
        ("street: 2001-13-45\n", "dates have no place here"),
        ("number: 010\n", "010 is no plain number"),
        ("number: 0x10\n", "0x10 is no plain number"),
        ("number: 1_000\n", "1_000 is no plain number"),
        ("number: 1:30\n", "1:30 is no plain number"),
        (f"number: {'9' * 5000}\n", "is no plain number"),
    ],
)
def test_yaml_that_hides_what_it_says_is_refused(text: str, told: str) -> None:
    assert any(told in problem for problem in problems(text))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"\xff\xfe", "is not UTF-8 (byte 0)"),
        (b"street: a\x07b\n", "is not YAML"),
        (b"a: " + b"[" * 5000, "is nested too deeply"),
        (b"{a: " * 5000, "is nested too deeply"),
        (b"a: " + b"x" * yamlfile.MAXIMUM_BYTES, "is larger than"),
    ],
)
def test_what_can_not_be_read_is_refused_before_long(raw: bytes, told: str) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError) as caught:
        parse(raw, House, "h.yaml")
    assert told in caught.value.message
    assert time.process_time() - begun < 10


def test_a_billion_laughs_cost_nothing() -> None:
    lines = ["a0: &a0 [ha, ha]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]
    told = problems("\n".join(lines))
    assert sum("aliases" in problem for problem in told) == 2 * 59
    assert sum("no such key" in problem for problem in told) == 60


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*gone.yaml: No such file"):
        load(tmp_path / "gone.yaml", House)
    with pytest.raises(ConfigError, match="can't read"):
        load(tmp_path, House)


def told_of(raw: bytes) -> ConfigError | None:
    """The error of reading a house, if there is one; any other exception fails the test."""
    try:
        parse(raw, House, "h.yaml")
    except ConfigError as error:
        return error
    return None


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_end_in_anything_but_a_model_or_a_config_error(raw: bytes) -> None:
    error = told_of(b"street: x\n" + raw)
    assert error is None or "h.yaml" in error.message


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda deeper: (
        st.lists(deeper, max_size=3) | st.dictionaries(st.sampled_from(["name", "lives", "x"]), deeper)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["street", "number", "rent", "pet", "roof"]), VALUES))
def test_every_problem_lies_within_the_file(data: dict[str, object]) -> None:
    text = yaml.safe_dump(data, default_flow_style=None)
    error = told_of(text.encode("utf-8", "surrogatepass"))
    lines = text.split("\n")
    problems = error.problems if isinstance(error, FileProblems) else []
    assert all(problem.column <= len(lines[problem.line - 1]) + 1 for problem in problems)


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        ("studies/cxr-nodule.yaml", "sites", "is a study, not a site's settings (site.yaml)"),
        ("studies/cxr-nodule.yaml", "policies", "is a study, not a site's policy"),
        ("sites/north.yaml", "studies", "is a site's settings (site.yaml), not a study"),
        ("policies/strict.yaml", "studies", "is a site's policy, not a study"),
        ("server/server.yaml", "sites", "is a server's settings (server.yaml), not a site's settings"),
        ("studies/cxr-nodule.yaml", "other", "is a study, not what is asked for here"),
    ],
)
def test_a_sound_file_of_another_kind_is_named_in_one_line(given: str, asked: str, said: str) -> None:
    from fedai_server.home import Settings
    from fedai_site.home import SiteSettings
    from fedai_site.policy import Policy

    from fedai.study import Study

    models = {"studies": Study, "sites": SiteSettings, "server": Settings, "policies": Policy, "other": House}
    with pytest.raises(ConfigError) as told:
        load(CONFIGS / given, models[asked])
    assert "\n" not in told.value.message
    assert f"{Path(given).name} {said}" in told.value.message
