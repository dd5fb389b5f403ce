"""`fedai site`: everything that a hospital's engineer does, from keys to the ledger."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedai.cli.output import JsonOption, emit, table
from fedai_site.cli_catalogue import app as catalogue_app
from fedai_site.cli_consent import app as consent_app
from fedai_site.cli_data import app as data_app
from fedai_site.cli_deid import app as deid_app
from fedai_site.cli_policy import app as policy_app

if TYPE_CHECKING:
    from fedai_site.home import SiteHome

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="At a hospital: data in, approvals, the agent, the ledger.",
)
ledger_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What left this site, line by line."
)
app.add_typer(ledger_app, name="ledger")
app.add_typer(deid_app, name="deid")
app.add_typer(data_app)
app.add_typer(catalogue_app, name="data")
app.add_typer(policy_app)
app.add_typer(consent_app, name="consent")

Home = Annotated[Path, typer.Argument(help="The site's home folder.", metavar="HOME")]
StudyFile = Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY")]


@app.command()
def init(
    home: Annotated[Path, typer.Argument(help="A new folder.", metavar="HOME")],
    name: Annotated[str, typer.Option(help="The site's name: a-z, 0-9 and hyphens.")] = "",
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The coordinator's server.")] = "",
    ca: Annotated[Path | None, typer.Option(help="The coordinator's ca.pem.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A site file with all of these (see configs/sites/).")
    ] = None,
    pseudonym_key: Annotated[
        Path | None,
        typer.Option(help="A key of `deid key` or `deid run` to take a copy of, for the same pseudonyms."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a site's home with fresh keys. Nothing but keys/agent.pub is for others."""
    from fedai_site.home import create_home, fingerprints

    made = create_home(home, _settings(config, {"name": name, "server": server, "ca": ca}), pseudonym_key)
    prints = fingerprints(made)
    lines = [
        f"home  {made.folder}",
        f"key   {prints['key_fingerprint']}",
        f"ca    {prints['ca_fingerprint'] or 'unreadable'}",
        f"next: give {made.public_key} to the coordinator; compare both fingerprints by telephone",
        f"then: fedai site add-data {home} FOLDER --labels LABELS.csv",
    ]
    facts = {"home": str(made.folder), "site": made.settings.name, "public_key": str(made.public_key)}
    facts |= prints
    emit(facts, as_json=as_json, lines=lines)


def _settings(config: Path | None, options: dict[str, Any]) -> Any:
    """From the site file, with options on top; all problems at once. Its `ca` is relative to it."""
    import json

    from fedai.errors import ConfigError
    from fedai.yamlfile import FileProblems, load, parse
    from fedai_site.home import SiteSettings

    if config is not None:
        settings = load(config, SiteSettings)
        ca = options["ca"] or config.parent / settings.server.ca
        address = options["server"] or settings.server.address
        kept = settings.model_dump(mode="json", exclude_none=True)
        kept |= {"name": options["name"] or settings.name, "server": {"address": address, "ca": str(ca)}}
    else:
        missing = [f"--{key}" for key, value in options.items() if not value]
        if missing:
            raise ConfigError(f"give {', '.join(missing)}, or --config FILE", hint="fedai site init --help")
        kept = {"name": options["name"], "server": {"address": options["server"], "ca": str(options["ca"])}}
    raw = json.dumps(kept, ensure_ascii=False).encode("utf-8", "surrogateescape")
    try:
        return parse(raw, SiteSettings, "the options")
    except FileProblems as found:  # the file was sound: it is what the options say
        told = [f"--{one.path.removeprefix('server.')}: {one.text}" for one in found.problems]
        told = [line.replace("--address:", "--server:") for line in told]
        raise ConfigError("\n".join(told), hint="fedai site init --help") from None


@app.command("renew-key")
def renew_key(home: Home, as_json: JsonOption = False) -> None:
    """Make a new key for the agent, where the old one was retired or got lost; data and pseudonyms stay."""
    from fedai_site.agent import alone
    from fedai_site.home import fingerprints, open_home
    from fedai_site.home import renew_key as renew

    site = open_home(home)
    with alone(site.folder):
        old = renew(site)
    fingerprint = fingerprints(site)["key_fingerprint"]
    lines = [
        f"key   {fingerprint}",
        f"old   {old}  (worth nothing once it is retired)",
        f"next: give {site.public_key} to the coordinator; compare the fingerprint by telephone",
        f"      fedai server retire SERVER_HOME {site.settings.name}, then fedai server admit",
    ]
    facts = {"key_fingerprint": fingerprint, "public_key": str(site.public_key), "old": str(old)}
    emit(facts, as_json=as_json, lines=lines)


@app.command()
def start(
    home: Home,
    give_up_s: Annotated[
        float | None, typer.Option(help="End after so many seconds without the server.")
    ] = None,
) -> None:
    """Run the agent in the foreground; Ctrl-C or SIGTERM ends it between two batches."""
    from fedai_site.home import open_home

    site = open_home(home)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    from fedai_site import gauges
    from fedai_site.agent import Agent, alone, log_to
    from fedai_site.confinement import confine, destinations

    with alone(site.folder):
        log_to(site.log, site.settings.log_format)
        confine(destinations(site.settings.server.address))
        agent = Agent(site, stop, tell=lambda text: print(text, flush=True))
        with gauges.kept(site, agent.dog):
            agent.work(give_up_s)


@app.command()
def status(
    home: Home,
    study: Annotated[Path | None, typer.Option(help="Also show this study's cohort.")] = None,
    prometheus: Annotated[
        bool, typer.Option("--prometheus", help="As numbers, in Prometheus' form.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What the agent does, what lies in the catalogue, what is approved, what has left."""
    from fedai_site.home import open_home
    from fedai_site.overview import overview, overview_lines

    if prometheus:
        from fedai_site.gauges import text_of

        text = text_of(open_home(home))
        emit({"prometheus": text}, as_json=as_json, lines=[text.rstrip()])
        return
    facts = overview(open_home(home), study)
    emit(facts, as_json=as_json, lines=overview_lines(facts))


@app.command()
def doctor(home: Home, as_json: JsonOption = False) -> None:
    """Look for what would keep this site from taking part: keys, clock, certificate, server, disk, memory."""
    from fedai.checks import tell
    from fedai_site.doctor import examine
    from fedai_site.home import open_home

    tell(examine(open_home(home)), as_json=as_json)


@app.command()
def train(
    study: StudyFile,
    home: Annotated[list[Path], typer.Option(help="A site's home on this machine; repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint.")],
    as_json: JsonOption = False,
) -> None:
    """Train without a federation: a local-only model, or (several homes) the centralised reference."""
    from fedai.study import read_study
    from fedai_site.alone import train_alone
    from fedai_site.home import open_home

    made = train_alone([open_home(path) for path in home], read_study(study), out, may_go_on=lambda: True)
    lines = [f"trained on {made['cases']} cases; {out / 'weights.safetensors'}"]
    emit({**made, "checkpoint": str(out / "weights.safetensors")}, as_json=as_json, lines=lines)


@app.command()
def backup(
    home: Home,
    file: Annotated[Path, typer.Argument(help="A new file, outside of the home.", metavar="FILE")],
    as_json: JsonOption = False,
) -> None:
    """Write catalogue, consents, splits, ledger, approvals and keys to FILE; keep it as the keys are kept."""
    from fedai_site.backup import back_up
    from fedai_site.home import open_home

    manifest = back_up(open_home(home), file)
    lines = [
        f"{len(manifest['files'])} files, {file.stat().st_size} bytes",
        f"it holds this site's keys: {file}",
    ]
    emit({"file": str(file), **manifest}, as_json=as_json, lines=lines)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file of `fedai site backup`.", metavar="FILE")],
    home: Annotated[Path, typer.Argument(help="A new folder.", metavar="HOME")],
    as_json: JsonOption = False,
) -> None:
    """Make a home from a backup; then add the archive's images again: they get the same pseudonyms."""
    from fedai_site.backup import restore as unpack

    made = unpack(file, home)
    lines = [
        f"home  {made.folder}",
        "next: end the agent of the home that it was made of: of two with one key one is let in",
        "then: withdraw again who has withdrawn since the backup was made",
        f"then: fedai site add-data {home} FOLDER",
    ]
    emit({"home": str(made.folder), "site": made.settings.name}, as_json=as_json, lines=lines)


@ledger_app.command("show")
def ledger_show(home: Home, last: Annotated[int, typer.Option(help="Only so many lines; 0 is all.")] = 20,
                content: Annotated[Path | None, typer.Option("--bytes", metavar="FOLDER",
                    help="Write the kept bytes that left to LINE.bin files here.")] = None,
                as_json: JsonOption = False) -> None:  # fmt: skip
    """What left, oldest first; with --bytes also what it was, checked against the ledger's hashes."""
    from fedai.ledger import Ledger
    from fedai_site.home import open_home

    site = open_home(home)
    lines = list(Ledger(site.ledger).lines())
    shown = lines[-last:] if last else lines
    keys = ("seq", "time", "kind", "run", "task", "round", "bytes", "code", "reason")
    rows = [tuple(str(entry.get(key, ""))[:80] for key in keys) for entry in shown]
    headings = ("line", "time", "kind", "run", "task", "round", "bytes", "code", "reason")
    told = table(headings, rows) if rows else ["nothing has left"]
    facts: dict[str, Any] = {"lines": shown}
    if content is not None:
        facts["bytes"] = _written_bytes(site, shown, content)
        told = table(("line", "bytes", "file"), [(n, size, file) for n, size, file in facts["bytes"]])
    emit(facts, as_json=as_json, lines=told)


def _written_bytes(site: SiteHome, shown: list[dict[str, Any]], folder: Path) -> list[tuple[int, int, str]]:
    """(line, bytes, file) of each line; no file where its bytes are not kept."""
    from fedai_site.sent import Sent

    sent, written = Sent(site.sent, site.settings.keep_sent_days), []
    sent.prune()
    folder.mkdir(parents=True, exist_ok=True)
    for entry in shown:
        content, file = sent.bytes_of(entry), folder / f"{entry['seq']}.bin"
        if content is not None:
            file.write_bytes(content)
        size = sum(size for _, size in entry.get("objects", []))
        written.append((entry["seq"], size, str(file) if content is not None else "not kept"))
    return written


@ledger_app.command("verify")
def ledger_verify(home: Home,
                  witness: Annotated[Path | None, typer.Option(metavar="PATH",
                      help="A file of heads, a run's record.json, or a folder of them.")] = None,
                  as_json: JsonOption = False) -> None:  # fmt: skip
    """Check chain and signed heads; names the first line that is broken, missing, rewritten or not signed."""
    from fedai_site.home import open_home
    from fedai_site.witness import verify

    found = verify(open_home(home), witness)
    late = ", the last line's still missing" if found.unheaded else ""
    heads = f"{found.heads} signed heads beside it{late}, {found.witnessed} of a witness"
    lines = [f"{found.lines} lines, unbroken; {heads}"]
    emit({**vars(found), "intact": True}, as_json=as_json, lines=lines)
