"""The adequacy report: one HTML file that needs nothing else and prints on A4, and the same as JSON.

Found values are never in it, only where they stand and in which column of the known list they are.
"""

from __future__ import annotations

import base64
import importlib.resources
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from fedai import __version__
from fedai_site.verification.findings import ORDER, Finding, Findings, Severity
from fedai_site.verification.inspection import Item, korea, limits, safe_harbor

HTML, JSON = "adequacy.html", "adequacy.json"
NUMBERS = re.compile(r"(?<=\[)\d+(?=\])|(?<=^byte )\d+|(?<=^line )\d+")
PLACES_SHOWN = 4
MOST_GROUPS = 400
WORDS = {
    "leak": "leak",
    "violation": "violation",
    "look": "look at",
    "info": "note",
    "found": "found",
    "clear": "clear",
    "reviewer": "reviewer",
}
HOW = {
    "file structure": "a parser of its own: preamble, file meta, lengths, order, bytes left over",
    "claims": "(0012,0062-0064), (0028,0301-0303): present, of CID 7050, not contradicting each other",
    "table": "every attribute at every depth against a second copy of PS3.15 Table E.1-1",
    "dates": "every date and time against (0028,0303)",
    "ages": "no age above 90 years",
    "private": "no private attribute unless claimed",
    "graphics": "no curve, no overlay unless claimed",
    "unlisted": "what the table doesn't list, by value representation: names, text, bytes, UIDs",
    "known values": "the site's own list in all bytes, text, names of files, inflated, unpacked and decoded",
    "form of an identifier": "registration, social security, telephone numbers; mail, web, network addresses",
    "references": "UIDs unique, a study one patient, a series one study, no patient merged",
    "evidence": "one line for each file, its SHA-256 that of the bytes on disk",
    "pixels": "compressed pixels can be decoded; their bytes are searched",
}


def write_report(findings: Findings, folder: Path) -> tuple[Path, Path]:
    """Write adequacy.html and adequacy.json into `folder`, making it if needed. Returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    html, data = folder / HTML, folder / JSON
    html.write_text(render(findings), encoding="utf-8")
    data.write_text(json.dumps(as_json(findings), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return html, data


def as_json(findings: Findings) -> dict[str, Any]:
    """Everything of the report but the pictures, as plain data."""
    return {
        **findings.as_json(),
        "release": __version__,
        "safe_harbor": [asdict(item) for item in safe_harbor(findings)],
        "korea": [asdict(item) for item in korea(findings)],
        "limits": list(limits(findings)),
    }


def summary(findings: Findings) -> dict[str, Any]:
    """The short form for the command line."""
    groups = [
        {**asdict(first), "findings": len(group), "files": len({f.file for f in group})}
        for first, group in _grouped(findings.findings)
    ]
    return {
        "ok": findings.ok,
        "by_severity": dict(findings.by_severity()),
        "counts": dict(findings.counts),
        "groups": groups,
    }


def summary_lines(findings: Findings) -> list[str]:
    """The short form as lines for a terminal."""
    counts = findings.counts
    lines = [
        f"{counts['objects']} objects of {counts['patients']} patients, {counts['bytes']:,} bytes read again"
    ]
    for first, group in _grouped(findings.findings):
        files = len({f.file for f in group})
        column = f" (column {first.column})" if first.column else ""
        where = f"{first.file} {first.place}".strip()
        lines.append(
            f"{first.severity:<9} {first.check}: {first.message}{column}, {files} files, first {where}"
        )
    lines.append("nothing identifying was found" if findings.ok else "NOT adequate: see the findings")
    return lines


def _grouped(findings: Iterable[Finding]) -> list[tuple[Finding, list[Finding]]]:
    """Findings that differ in file and item numbers only, together; the worst first."""
    groups: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for f in findings:
        groups[(f.severity, f.check, f.message, NUMBERS.sub("", f.place), f.column)].append(f)
    return sorted(((group[0], group) for group in groups.values()), key=lambda pair: ORDER[pair[0].severity])


def render(findings: Findings) -> str:
    """The report as one HTML text."""
    style = importlib.resources.files(__package__).joinpath("report.css").read_text("utf-8")
    sections = (
        _header(findings), _verdict(findings), _checks(findings), _list(findings), _claims(findings),
        _items("HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)", "Identifier", safe_harbor(findings)),
        _items("Self-inspection (PIPC 2024-02, MOHW 2022-12)", "What is asked", korea(findings)),
        _pictures(findings), _limits(findings), _signatures(),
    )  # fmt: skip
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>Adequacy report · {escape(findings.folder)}</title><style>{style}</style>"
    body = "\n".join(section for section in sections if section)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    title = f"<caption>{caption}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _state(state: str) -> str:
    return f'<span class="state {state}">{WORDS[state]}</span>'


def _header(findings: Findings) -> str:
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        '<header><p class="kind">Adequacy report on de-identified images</p>'
        f"<h1>{escape(findings.folder)}</h1>"
        f'<p class="muted">read again on {when} by the second reader of fedai {__version__}, which '
        f"shares no code "
        f"with the de-identification · PS3.15 Table E.1-1, edition "
        f"{escape(str(findings.facts.get('table_edition')))}"
        "</p></header>"
    )


def _verdict(findings: Findings) -> str:
    by = findings.by_severity()
    words = "No identifier was found, and every object is what it claims to be."
    if by[Severity.LOOK]:
        words = f"No identifier was found. {by[Severity.LOOK]} places are for a person to look at."
    if not findings.ok:
        words = f"Not adequate: {by[Severity.LEAK]} leaks, {by[Severity.VIOLATION]} violations."
    tiles = "".join(
        f'<div class="tile"><b>{findings.counts.get(name, 0):,}</b><span>{name}</span></div>'
        for name in ("objects", "patients", "studies", "series")
    )
    kind = "verdict" if findings.ok else "verdict bad"
    return f'<div class="{kind}"><b>{words}</b></div><div class="tiles">{tiles}</div>'


def _checks(findings: Findings) -> str:
    rows = []
    for check in findings.checks:
        found = findings.of(check)
        worst = str(min((f.severity for f in found), key=ORDER.__getitem__, default="clear"))
        known = check != "known values" or findings.facts.get("known", {}).get("given")
        state = _state(worst) if known else '<span class="state reviewer">no list</span>'
        rows.append((escape(check), escape(HOW[check]), f"{len(found):,}", state))
    return (
        f"<section><h2>What was checked</h2>{_table(('Check', 'How', 'Findings', 'Result'), rows)}</section>"
    )


def _list(findings: Findings) -> str:
    groups = _grouped(findings.findings)
    if not groups:
        return "<section><h2>Findings</h2><p>None.</p></section>"
    rows = [
        (
            _state(str(first.severity)),
            escape(first.message),
            escape(first.column),
            f"{len(group):,}",
            _where(group),
        )
        for first, group in groups[:MOST_GROUPS]
    ]
    note = (
        ""
        if len(groups) <= MOST_GROUPS
        else f"<p>{len(groups) - MOST_GROUPS} more kinds are in the JSON file.</p>"
    )
    table = _table(("", "What", "Column of the list", "Times", "Where (the first few)"), rows)
    return f"<section><h2>Findings</h2>{table}{note}</section>"


def _where(group: Sequence[Finding]) -> str:
    shown = [f"<code>{escape(f'{f.file} {f.place}'.strip())}</code>" for f in group[:PLACES_SHOWN]]
    return "<br>".join(shown) + (" …" if len(group) > PLACES_SHOWN else "")


def _claims(findings: Findings) -> str:
    known = findings.facts.get("known", {})
    rows = [
        (escape(name), escape(", ".join(f"{value}: {count:,}" for value, count in values.items()) or "none"))
        for name, values in findings.facts.get("tables", {}).items()
    ]
    rows += [(escape(name), f"{count:,}") for name, count in findings.counts.items()]
    if known.get("given"):
        searched, left = ", ".join(known["columns"]), ", ".join(known["not_searched"])
        rows.append(
            (
                "known list",
                f"{known['rows']:,} rows; searched: {escape(searched)}; not: {escape(left or '-')}",
            )
        )
    return f"<section><h2>What the objects say, in numbers</h2>{_table(('', ''), rows)}</section>"


def _items(title: str, heading: str, items: Sequence[Item]) -> str:
    rows = [(item.number, escape(item.asks), escape(item.answer), _state(item.state)) for item in items]
    headings = ("", heading, "Answer of this reading", "Result")
    return f"<section><h2>{title}</h2>{_table(headings, rows)}</section>"


def _pictures(findings: Findings) -> str:
    if not findings.pictures:
        return ""
    figures = "".join(
        f'<figure><img alt="" src="data:image/png;base64,{base64.b64encode(p.png).decode()}">'
        f"<figcaption>{escape(p.file)}, frame {p.frame + 1}</figcaption></figure>"
        for p in findings.pictures
    )
    words = "Chosen by a seed from the objects that claim (0028,0301) NO: look for text in them."
    return (
        f'<section><h2>Sample pictures</h2><p class="muted">{words}</p>'
        f'<div class="pictures">{figures}</div></section>'
    )


def _limits(findings: Findings) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in limits(findings))
    return f"<section><h2>What this reading can't know</h2><ul>{lines}</ul></section>"


def _signatures() -> str:
    roles = ("Prepared by", "Reviewed by (inside)", "Reviewed by (outside)", "Review board, decision number")
    lines = "".join(
        f'<div class="sign"><div>{role}</div><div>Name, function</div>'
        "<div>Date</div><div>Signature</div></div>"
        for role in roles
    )
    return f"<section><h2>Sign-off</h2>{lines}</section>"
