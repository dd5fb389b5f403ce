"""YAML -> frozen pydantic model, with every problem at once as `file:line:column: path: problem (hint)`.

Read with PyYAML's safe loader only. Duplicate keys and aliases are refused: a reviewer must see what a file
says.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fedai.errors import ConfigError

MAXIMUM_BYTES = 200_000
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))
LONGEST_NUMBER = 40
WITHHELD = "?"  # stands for a value that was found odd while the rest of the file is checked
ODD_NUMBER = re.compile(r"[-+]?0[0-9xbo]|.*[:_]")  # octal, hexadecimal, binary, base 60, 1_000
KINDS = {
    "Study": ("a study", frozenset({"task", "network", "training", "rounds", "strategy"})),
    "SiteSettings": ("a site's settings (site.yaml)", frozenset({"name", "server"})),
    "Policy": ("a site's policy", frozenset({"signers", "approvers", "approval_days", "minimum_cohort",
                                             "minimum_cell", "new_cases", "limits", "purposes", "tasks"})),
    "Settings": ("a server's settings (server.yaml)", frozenset({"public_host", "public_port"})),
}  # fmt: skip
"""Model -> what its files are called, and keys by which such a file is known where another is asked for."""
OF_A_KIND = 2  # of these keys
COMMON = {"name", "version", "sites", "purpose"}
Model = TypeVar("Model", bound=BaseModel)


class Frozen(BaseModel):
    """Base of all file models: immutable, unknown keys refused, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file, at a 1-based line and column."""

    line: int
    column: int
    path: str
    text: str
    hint: str = ""

    def show(self, file: str) -> str:
        advice = f" ({self.hint})" if self.hint else ""
        path = f"{self.path}: " if self.path else ""
        return f"{file}:{self.line}:{self.column}: {path}{self.text}{advice}"


class FileProblems(ConfigError):
    """All problems of one file; `problems` has them one by one."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column, problem.path))
        lines = "\n".join(problem.show(file) for problem in self.problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        super().__init__(f"{count} in {file}\n{lines}", hint="mend the lines named above and try again")


def load(path: Path, model: type[Model]) -> Model:
    """Read `path` into `model`.

    A model may have a static `cross_checks(data) -> list[(loc, text)]` over the raw mapping, for rules that
    span keys: they are reported beside the others. Raises FileProblems (a ConfigError) with every problem's
    line and column.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", hint="check the path") from None
    return parse(raw, model, str(path))


def parse(raw: bytes, model: type[Model], file: str) -> Model:
    """Validate YAML (or JSON) bytes against `model`; `file` is the name used in problems."""
    node = _compose(raw, file)
    hidden = _structure_problems(node)
    data = yaml.SafeLoader("").construct_document(node)
    _refuse_other_kinds(data, model, file)
    crossed = [
        _cross_problem(node, *finding) for finding in getattr(model, "cross_checks", lambda _: [])(data)
    ]
    try:
        valid = model.model_validate(data)
    except ValidationError as invalid:
        errors = _worth_telling(invalid.errors(), crossed)
        told = crossed + [_problem(node, model, error) for error in errors]
        raise FileProblems(file, hidden + _elsewhere(told, hidden)) from None
    if crossed or hidden:
        raise FileProblems(file, hidden + _elsewhere(crossed, hidden))
    return valid


def _refuse_other_kinds(data: Any, model: type[BaseModel], file: str) -> None:
    """Raise ConfigError for a sound file of another kind: one line, not one for each of its keys."""
    wanted = KINDS.get(model.__name__, ("what is asked for here", frozenset()))[0]
    for name, (kind, known) in KINDS.items():
        if name != model.__name__ and len(known & set(data)) >= OF_A_KIND and not data.keys() & _own(model):
            raise ConfigError(f"{file} is {kind}, not {wanted}", hint="name the right file")


def _own(model: type[BaseModel]) -> set[str]:
    """Keys that a file of this model must have and that tell it from the others."""
    required = {name for name, field in model.model_fields.items() if field.is_required()}
    return (required or set(model.model_fields)) - COMMON


def _elsewhere(problems: list[Problem], told: list[Problem]) -> list[Problem]:
    """Those that aren't of a place which is told to be wrong already."""
    places = {(problem.line, problem.column, problem.path) for problem in told}
    return [one for one in problems if (one.line, one.column, one.path) not in places]


def _compose(raw: bytes, file: str) -> yaml.MappingNode:
    if len(raw) > MAXIMUM_BYTES:
        raise ConfigError(f"{file} is larger than {MAXIMUM_BYTES:,} bytes", hint="is this the right file?")
    try:
        node = yaml.compose(raw.decode("utf-8"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 (byte {error.start})", hint="save it as UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{file} is nested too deeply", hint="is this the right file?") from None
    except yaml.MarkedYAMLError as error:
        raise FileProblems(file, [_syntax_problem(error)]) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {error}", hint="is this the right file?") from None
    if not isinstance(node, yaml.MappingNode):
        raise FileProblems(file, [Problem(1, 1, "", "expected keys and values", "write `key: value` lines")])
    if fault := _value_fault(node, yaml.SafeLoader("")):
        raise FileProblems(file, [_at(node, "", *fault)])
    return node


def _syntax_problem(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return Problem(line, column, "", f"not valid YAML: {error.problem or error.context}")


def _structure_problems(root: yaml.MappingNode) -> list[Problem]:
    """Duplicate keys, odd keys, tags, aliases, odd numbers: legal YAML that hides what a file says.

    What is found is taken out of the tree, or a plain word is put in its place, so that the rest can be
    checked too.
    """
    problems: list[Problem] = []
    seen: set[int] = set()
    reader = yaml.SafeLoader("")

    def visit(node: yaml.Node, path: str) -> yaml.Node:
        fault = _value_fault(node, reader)
        if id(node) in seen:
            fault = ("aliases (&, *) are not allowed", "write the value out")
        seen.add(id(node))
        if fault:
            problems.append(_at(node, path, *fault))
            return yaml.ScalarNode("tag:yaml.org,2002:str", WITHHELD, node.start_mark, node.end_mark)
        if isinstance(node, yaml.SequenceNode):
            node.value = [visit(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            node.value = list(visit_keys(node, path))
        return node

    def visit_keys(node: yaml.MappingNode, path: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        keys: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                problems.append(_at(key, path, "keys must be plain words", "no number, yes, no or list"))
                continue
            name = f"{path}.{key.value}" if path else key.value
            cleaned = visit(value, name)
            if key.value in keys:
                problems.append(_at(key, name, "this key stands here twice", "keep one of them"))
                continue
            keys.add(key.value)
            yield key, cleaned

    visit(root, "")
    return problems


def _value_fault(node: yaml.Node, reader: yaml.SafeLoader) -> tuple[str, str] | None:
    """What is wrong with a node by itself, and a hint: a tag, a date, a number that reads as another."""
    scalar = isinstance(node, yaml.ScalarNode)
    implicit = (getattr(node, "style", None) is None, True) if scalar else (True, False)
    if node.tag == "tag:yaml.org,2002:timestamp" and scalar:
        return "dates have no place here", f'quote it: "{node.value}"'
    plain = reader.resolve(type(node), node.value, implicit)  # type: ignore[no-untyped-call]
    if node.tag != plain or (scalar and node.tag not in PLAIN_TAGS):
        return f"the tag {node.tag} is not allowed", "write plain values"
    is_number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    if is_number and (ODD_NUMBER.match(node.value) or len(node.value) > LONGEST_NUMBER):
        return f"{node.value[:LONGEST_NUMBER]} is no plain number", "write decimal digits, or quote it"
    return None


def _worth_telling(errors: Sequence[Any], crossed: Sequence[Problem]) -> list[Any]:
    """Leave out what only follows: a rule said already, a list too short because its items are wrong."""
    places = [error["loc"] for error in errors]
    return [
        error
        for error in errors
        if not (crossed and not error["loc"])
        and not (error["type"] == "too_short" and any(_is_inside(place, error["loc"]) for place in places))
    ]


def _is_inside(place: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _at(node: yaml.Node, path: str, text: str, hint: str = "") -> Problem:
    return Problem(node.start_mark.line + 1, node.start_mark.column + 1, path, text, hint)


def _problem(root: yaml.Node, model: type[BaseModel], error: Any) -> Problem:
    node, key, path = _find(root, error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        unknown = str(error["loc"][-1])
        return _at(key or node, path, "no such key", _suggest(unknown, _fields_at(model, error["loc"][:-1])))
    if kind == "missing":
        return _at(node, _joined(path, error["loc"][-1]), "is missing", "add it")
    tag = "kind" if _child(node, "kind") else "name"
    if kind == "union_tag_not_found" or (kind == "union_tag_invalid" and not _child(node, tag)):
        if not isinstance(node, yaml.MappingNode):
            return _at(node, path, "expected keys and values", "write {name: ...}")
        return _at(node, _joined(path, "name"), "is missing", "add it")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return _at(node, path, "expected keys and values", "write `key: value` lines below it")
    if kind == "union_tag_invalid":
        context = error["ctx"]
        tags = [name.strip().strip("'") for name in context["expected_tags"].split(",")]
        known = [name for name in tags if name.isidentifier()]
        name = _child(node, tag)
        place = name[1] if name else node
        return _at(
            place,
            f"{path}.{tag}",
            f"there is no {context['tag']!r} here",
            _suggest(str(context["tag"]), known),
        )
    message = error["msg"].removeprefix("Value error, ")
    return _at(node, path, message[:1].lower() + message[1:], _scalar_hint(node, kind))


def _cross_problem(root: yaml.Node, loc: tuple[object, ...], text: str) -> Problem:
    node, _, path = _find(root, loc)
    return _at(node, path, text)


def _scalar_hint(node: yaml.Node, kind: str) -> str:
    if kind == "string_type" and isinstance(node, yaml.ScalarNode):
        return f'quote it: "{node.value}"'
    return ""


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known here: " + ", ".join(sorted(known)) if known else ""


def _child(node: yaml.Node, step: object) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(step)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _find(root: yaml.Node, loc: tuple[object, ...]) -> tuple[yaml.Node, yaml.Node | None, str]:
    """The deepest node on `loc`, its key node, and the path in words; union tags in `loc` are no places and
    skipped.
    """
    node, key, path = root, None, ""
    for step in loc:
        found = _child(node, step)
        if found is None:
            continue
        key, node = found
        path = _joined(path, step)
    return node, key, path


def _joined(path: str, step: object) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else str(step)


def _fields_at(model: type[BaseModel], loc: tuple[object, ...]) -> list[str]:
    """Names of the keys that the models at `loc` know."""
    here: list[Any] = [model]
    for step in loc:
        here = [deeper for kind in here for deeper in _step(kind, step)]
    return sorted({name for kind in here if _is_model(kind) for name in kind.model_fields})


def _step(kind: Any, step: object) -> list[Any]:
    if _is_model(kind):
        if step in kind.model_fields:
            return _members(kind.model_fields[str(step)].annotation)
        return [kind] if _has_tag(kind, step) or step == kind.__name__ else []
    if isinstance(step, int):
        return [deeper for item in typing.get_args(kind) if item is not Ellipsis for deeper in _members(item)]
    return []


def _members(annotation: Any) -> list[Any]:
    """Open `Annotated` and unions down to models and sequences."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [member for choice in typing.get_args(annotation) for member in _members(choice)]
    return [annotation]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _has_tag(kind: type[BaseModel], tag: object) -> bool:
    field = kind.model_fields.get("name") or kind.model_fields.get("kind")
    return field is not None and tag in typing.get_args(field.annotation)
