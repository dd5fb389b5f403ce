"""The house's numbers: short functions, short modules, shallow classes (docs/architecture.md)."""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "fedai", ROOT / "sites" / "fedai_site", ROOT / "server" / "fedai_server")
MODULES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, a docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) and len(function.body) > 1 else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_at_most_400_lines_and_none_of_its_functions_more_than_80(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert {f.name: lines(f) for f in functions(ast.parse(text)) if lines(f) > 80} == {}


def test_half_of_all_functions_have_at_most_seven_lines() -> None:
    lengths = [lines(f) for path in MODULES for f in functions(ast.parse(path.read_text(encoding="utf-8")))]
    assert len(lengths) > 500
    assert statistics.median(lengths) <= 7


def test_our_own_class_chains_are_at_most_three_deep() -> None:
    bases: dict[str, set[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                names = {base.id for base in node.bases if isinstance(base, ast.Name)}
                bases.setdefault(node.name, set()).update(names)

    def depth(name: str) -> int:
        return 1 + max((depth(base) for base in bases[name] if base in bases and base != name), default=0)

    assert {name: depth(name) for name in bases if depth(name) > 3} == {}
