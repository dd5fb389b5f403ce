"""Makes iod.json from the module tables that highdicom ships: `python sites/recipes/iod.py
HIGHDICOM/_standard`.

Sub-trees that occur more than once (functional groups, codes) are written once: 22 MB become 0.25.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

SOURCE = "PyPI highdicom 0.28.2, highdicom/_standard (from DICOM PS3.3 and PS3.4)"
TYPES = ("1", "1C", "2", "2C", "3")
Tree = dict[str, Any]  # keyword -> (type, Tree)


def _tree(rows: list[dict[str, Any]]) -> Tree:
    """The nested attributes of a module, from its rows with their paths."""
    tree: Tree = {}
    for row in sorted(rows, key=lambda row: len(row["path"])):
        place = tree
        for step in row["path"]:
            place = place.setdefault(step, ("3", {}))[1]
        kind = row["type"] if row["type"] in TYPES else "3"
        place.setdefault(row["keyword"], (kind, {}))
    return tree


def _number(tree: Tree, nodes: dict[str, int]) -> int:
    """The index of a tree among all different ones; it is added if it is new."""
    rows = []
    for keyword, (kind, children) in tree.items():
        tag = tag_for_keyword(keyword)
        if tag is not None:
            rows.append([f"{tag:08X}", kind, *([_number(children, nodes)] if children else [])])
    text = json.dumps(sorted(rows, key=lambda row: str(row[0])), separators=(",", ":"))
    return nodes.setdefault(text, len(nodes))


def build(folder: Path) -> str:
    """iod.json as text, one node a line."""
    names = ("module_attribute_map.json", "iod_module_map.json", "sop_class_iod_map.json")
    raw = [(folder / name).read_bytes() for name in names]
    modules, iods, classes = (json.loads(data) for data in raw)
    nodes: dict[str, int] = {}
    numbers = {name: _number(_tree(rows), nodes) for name, rows in sorted(modules.items())}
    trees = {
        name: [numbers[row["key"]] for row in rows if row["key"] in numbers] for name, rows in iods.items()
    }
    head = {
        "source": SOURCE,
        "sha256": {name: sha256(data).hexdigest() for name, data in zip(names, raw, strict=True)},
        "modules": numbers,
        "iods": trees,
        "sop_classes": classes,
    }
    lines = ",\n".join(nodes)
    return f'{{"head": {json.dumps(head, separators=(",", ":"))},\n"nodes": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    target = Path(__file__).resolve().parents[1] / "fedai_site/deidentify/iod.json"
    target.write_text(build(Path(sys.argv[1])), encoding="utf-8")
