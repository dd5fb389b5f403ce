"""The documentation is held against the code: commands parse, links lead somewhere, the walkthrough runs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from fedai_site.home import SiteSettings
from fedai_site.policy import Policy

from fedai.cli.app import fedai
from fedai.yamlfile import load

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for page in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("s*/README.md"),
        *ROOT.glob("benchmarks/**/*.md"),
    )
)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
YAML_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.M | re.S)
INDENTED = re.compile(r"^    (fedai .*?)(?:\s+#.*)?$", re.M)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
WALKTHROUGH_S = 900


def commands_of(page: Path) -> Iterator[str]:
    """Every `fedai ...` command that a page shows, without redirections and what follows `|`, `&`, `;`."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()] + INDENTED.findall(text)
    for line in lines:
        for part in re.split(r"\|\||&&|[|&;>]", line.partition("  #")[0]):
            words = [word for word in part.split() if "=" not in word or not word.isupper()]
            if words[:1] == ["fedai"]:
                yield part[part.index("fedai") :].strip()


SHOWN = sorted(
    {(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands_of(page)}
)


@pytest.mark.parametrize(("page", "command"), SHOWN)
def test_a_command_that_a_page_shows_is_one_that_fedai_understands(page: str, command: str) -> None:
    words = shlex.split(command)[1:]
    if words in (["--help"], ["--version"]):
        return
    context = fedai.make_context("fedai", words)
    while isinstance(context.command, click.Group):
        name, found, rest = context.command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        assert found is not None, f"{page}: {command}"
        context = found.make_context(name, rest, parent=context)


def test_the_pages_show_the_commands_of_every_noun() -> None:
    nouns = {shlex.split(command)[1] for _, command in SHOWN}
    assert set(fedai.list_commands(click.Context(fedai))) <= nouns


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_link_of_a_page_leads_to_a_file(page: Path) -> None:
    missing = [
        link for link in LINK.findall(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()
    ]
    assert not missing


def test_what_the_site_engineers_page_writes_into_site_yaml_and_policy_yaml_is_understood(
    tmp_path: Path,
) -> None:
    server = "name: north\nserver: {address: 'fed.example.org:8443', ca: ca.pem}\n"
    blocks = YAML_BLOCK.findall((ROOT / "docs" / "site-engineer.md").read_text(encoding="utf-8"))
    found = {block.partition(":")[0] for block in blocks}
    assert {"dicomweb", "receiver", "witness", "memory_gb", "retention", "metrics_file"} <= found
    for block in blocks:
        is_rule = block.startswith("retention:")
        file = tmp_path / "file.yaml"
        file.write_text(block if is_rule else server + block, encoding="utf-8")
        load(file, Policy if is_rule else SiteSettings)


def test_a_make_target_that_a_page_shows_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = {
        target
        for page in PAGES
        for target in re.findall(r"`?make ([a-z-]+)`?", page.read_text(encoding="utf-8"))
    }
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert {"demo", "test", "check", "test-fast"} <= shown & targets


@pytest.mark.federation
def test_the_walkthrough_runs_line_by_line(tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / "docs" / "walkthrough.md").read_text(encoding="utf-8"))
    script = "set -eu\n" + "\n".join(blocks)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    walk = subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said = walk.communicate(timeout=WALKTHROUGH_S)[0].decode()
    finally:
        if walk.poll() is None:
            os.killpg(walk.pid, signal.SIGKILL)
    assert walk.returncode == 0, said
    assert "cxr-nodule-1 finished" in said
    assert said.count("unbroken") >= 3
    assert (tmp_path / "report.html").stat().st_size > 10_000
