"""`fedai server`: set up the coordinator's machine, run it, admit sites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fedai.cli.output import JsonOption, emit, table, when
from fedai.errors import ConfigError

if TYPE_CHECKING:
    from fedai_server.certificates import Given
    from fedai_server.home import ServerHome
    from fedai_server.processes import Child

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="At the coordinator: set up, start, admit sites.",
)

ledger_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Who asked what of this server, line by line."
)
app.add_typer(ledger_app, name="ledger")

Home = Annotated[Path, typer.Argument(help="The server's home folder.", metavar="HOME")]
CertificateOption = Annotated[
    Path | None, typer.Option(help="The server's certificate from it, then those between (PEM).")
]
KeyOption = Annotated[Path | None, typer.Option(help="The certificate's key (PEM, no password).")]
Role = Literal["coordinator", "observer"]
Site = Annotated[str, typer.Argument(help="The site's name: a-z, 0-9 and hyphens.")]


@app.command()
def init(
    home: Annotated[Path, typer.Argument(help="A new folder.", metavar="HOME")],
    public: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="What sites connect to.")
    ] = "127.0.0.1:8443",
    name: Annotated[list[str] | None, typer.Option(help="A further DNS name or address; repeatable.")] = None,
    loopback_port: Annotated[int | None, typer.Option(help="Port for this machine alone.")] = None,
    authority: Annotated[
        Path | None, typer.Option(help="The consortium's authority (PEM), with --certificate and --key.")
    ] = None,
    certificate: CertificateOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a server's home: settings, certificate authority, certificate, secrets, and the kit for sites."""
    from fedai_server import pki
    from fedai_server.admission import write_kit
    from fedai_server.home import init_home, split_host_port
    from fedai_server.ledger import note

    host, port = split_host_port(public)
    given = _given(authority, certificate, key)
    made = init_home(
        home, public_host=host, public_port=port, loopback_port=loopback_port, names=name or (), given=given
    )
    note(made, "init")
    kit = write_kit(made, made.folder / "kit")
    fingerprint = pki.fingerprint(made.authority.read_bytes())
    result = {
        "home": str(made.folder),
        "address": made.address,
        "ca_fingerprint": fingerprint,
        "kit": str(kit),
    }
    lines = [
        f"home         {made.folder}",
        f"address      {made.address}",
        f"fingerprint  {fingerprint}",
        f"kit          {kit}  (send it to the sites; read them the fingerprint by telephone)",
        f"next: fedai server start {made.folder}",
    ]
    emit(result, as_json=as_json, lines=lines)


@app.command()
def start(
    home: Home,
    record: Annotated[Path | None, typer.Option(help="Keep every request received from sites here.")] = None,
) -> None:
    """Run the server in the foreground; Ctrl-C ends it and all that it started. Runs under way go on."""
    from fedai.logs import write_json
    from fedai_server.home import open_home
    from fedai_server.processes import stop_on_signals, supervise

    opened = open_home(home)
    write_json(opened.settings.log_format)

    def ready() -> None:
        print(f"ready {opened.address} logs {opened.logs}", flush=True)

    def restarted(child: Child) -> None:
        print(f"{child.name} ended and is started again, log {child.log}", flush=True)

    def continued(run: str) -> None:
        print(f"{run} goes on", flush=True)

    with stop_on_signals() as stop:
        supervise(
            opened, record=record, stop=stop, on_ready=ready, on_restart=restarted, on_continued=continued
        )
    print("stopped", flush=True)


@app.command()
def admit(
    home: Home,
    site: Site,
    public_key: Annotated[Path, typer.Argument(help="The site's keys/agent.pub.", metavar="PUBLIC_KEY_FILE")],
    as_json: JsonOption = False,
) -> None:
    """Admit a site by its public key (the server must be up), and write its kit.

    The kit is a folder for the site's engineer: ca.pem, by which the site knows this server, and kit.yaml
    with the server's address. It holds no secret.
    """
    from fedai_server.admission import admit as admit_site
    from fedai_server.home import open_home

    made = admit_site(open_home(home), site, public_key)
    result = {"site": made.site, "node_id": str(made.node_id), "key_fingerprint": made.key_fingerprint,
              "kit": str(made.kit), "new": made.new}  # fmt: skip
    said = "admitted" if made.new else "was admitted already"
    kit = f"kit  {made.kit}  (ca.pem and the server's address, for the site)"
    lines = [f"{made.site} {said}", f"key  {made.key_fingerprint}", kit]
    emit(result, as_json=as_json, lines=lines)


@app.command()
def retire(home: Home, site: Site, as_json: JsonOption = False) -> None:
    """Shut a site out for good (the server must be up); to come back it needs a new key."""
    from fedai_server.admission import retire as retire_site
    from fedai_server.home import open_home

    found = retire_site(open_home(home), site)
    emit({"site": site, "retired": found}, as_json=as_json,
         lines=[f"{site} {'retired' if found else 'was not admitted'}"])  # fmt: skip


@app.command()
def renew(
    home: Home, certificate: CertificateOption = None, key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Make a new server certificate under the same authority, or take one of the consortium's; a server that
    runs shows it from then on, and sites need nothing new.
    """
    from fedai_server import certificates, pki
    from fedai_server.home import open_home
    from fedai_server.ledger import note

    opened = open_home(home)
    hosts = (opened.settings.public_host, *opened.settings.names)
    given = _given(opened.authority, certificate, key) if certificate or key else None
    ours = opened.settings.authority == "own"
    if ours == (given is not None):
        raise ConfigError(
            "sites trust this home's own authority, which signs its certificate" if ours
            else "this home's certificate comes from the consortium's authority",
            hint="leave out --certificate and --key" if ours else "give the new one: --certificate and --key",
        )  # fmt: skip
    note(opened, "renew")
    if given is not None:
        certificates.take(opened.pki, given, hosts)
    else:
        pki.make_server_certificate(opened.pki, hosts)
    pem = (opened.pki / "server.pem").read_bytes()
    names = pki.names_of(pem)
    days = pki.days_left(pem)
    lines = [f"valid for {', '.join(names)}, {days} days; a server that runs shows it in a few seconds"]
    emit({"names": names, "days": days}, as_json=as_json, lines=lines)


def _given(authority: Path | None, certificate: Path | None, key: Path | None) -> Given | None:
    from fedai_server.certificates import Given

    if authority is None and certificate is None and key is None:
        return None
    if authority is None or certificate is None or key is None:
        raise ConfigError(
            "--authority, --certificate and --key go together", hint="give all, or none of them"
        )
    return Given(authority, certificate, key)


@app.command()
def status(home: Home, as_json: JsonOption = False) -> None:
    """Say whether the server is up, and which sites are there."""
    from fedai_server.admission import admitted_sites
    from fedai_server.control import Control
    from fedai_server.home import open_home
    from fedai_server.processes import is_ready

    opened = open_home(home)
    up = is_ready(opened)
    sites = [(name, "unknown", "") for name in admitted_sites(opened)]
    if up:
        with Control(opened) as control:
            sites = [(site.name, site.status, site.last_activated_at) for site in control.list_sites()]
    shown = [{"site": name, "status": state, "last_activated_at": seen} for name, state, seen in sites]
    head = f"{'up' if up else 'down'}  {opened.address}"
    told = [(name, state, when(seen)) for name, state, seen in sites]
    rows = table(("site", "status", "last activated"), told) if sites else ["no site admitted"]
    emit({"up": up, "address": opened.address, "sites": shown}, as_json=as_json, lines=[head, *rows])


@app.command()
def doctor(home: Home, as_json: JsonOption = False) -> None:
    """Look for what would keep the server or its sites from working."""
    from fedai.checks import tell
    from fedai_server.doctor import examine
    from fedai_server.home import open_home

    tell(examine(open_home(home)), as_json=as_json)


@app.command()
def token(
    home: Home,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Make a token of this name.")] = None,
    role: Annotated[Role, typer.Option(help="What its holder may do.")] = "observer",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its file; default: NAME.token in this folder.")
    ] = None,
    revoke: Annotated[str | None, typer.Option(metavar="NAME", help="End this token, for good.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token for somebody else, or end one; with neither, list them. A coordinator may do everything,
    an observer list and watch. FEDAI_CONTROL_TOKEN=FILE is how its holder uses it.
    """
    from fedai.errors import ConfigError
    from fedai_server.home import open_home
    from fedai_server.roles import holders

    opened = open_home(home)
    if name is not None and revoke is not None:
        raise ConfigError("--name makes a token and --revoke ends one", hint="give one of the two")
    if name is not None:
        _make_token(opened, name, role, out or Path(f"{name}.token"), as_json=as_json)
    elif revoke is not None:
        _revoke_token(opened, revoke, as_json=as_json)
    else:
        rows = [(one.name, one.role, "revoked" if one.revoked else "") for one in holders(opened)]
        told = [{"name": one.name, "role": one.role, "revoked": one.revoked} for one in holders(opened)]
        emit({"tokens": told}, as_json=as_json, lines=table(("name", "role", ""), rows))


def _make_token(home: ServerHome, name: str, role: Role, file: Path, *, as_json: bool) -> None:
    from fedai_server.ledger import note
    from fedai_server.roles import VARIABLE, check_new, make_token

    check_new(home, name, file)
    note(home, "make token", token=name, token_role=role)
    make_token(home, name, role, file)
    lines = [f"{name} may {'do everything' if role == 'coordinator' else 'list and watch'}", f"file  {file}",
             f"next: {VARIABLE}={file} fedai server status {home.folder}"]  # fmt: skip
    emit({"name": name, "role": role, "file": str(file)}, as_json=as_json, lines=lines)


def _revoke_token(home: ServerHome, name: str, *, as_json: bool) -> None:
    from fedai_server.ledger import note
    from fedai_server.roles import check_there, revoke

    check_there(home, name)
    note(home, "revoke token", token=name)
    ended = revoke(home, name)
    line = f"{name} may do nothing any more" if ended else f"{name} was revoked before"
    emit({"name": name, "revoked": ended}, as_json=as_json, lines=[line])


@ledger_app.command("show")
def ledger_show(
    home: Home,
    last: Annotated[int, typer.Option(help="Only so many lines; 0 is all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Who asked what of this server, oldest first."""
    from fedai_server.home import open_home
    from fedai_server.ledger import WRITTEN, ledger_of

    lines = list(ledger_of(open_home(home)).lines())
    shown = lines[-last:] if last else lines
    keys = ("seq", "time", "by", "role", "operation")
    rows = [
        (
            *(str(entry.get(key, ""))[:80] for key in keys),
            " ".join(f"{key}={entry[key]}" for key in entry if key not in WRITTEN),
            entry.get("refused", ""),
        )
        for entry in shown
    ]
    head = ("line", "time", "by", "role", "operation", "of", "refused")
    emit({"lines": shown}, as_json=as_json, lines=table(head, rows) if rows else ["nothing was asked"])


@ledger_app.command("verify")
def ledger_verify(
    home: Home,
    witness: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A copy of ledger.heads.jsonl, kept elsewhere.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check chain and signed heads; names the first line that is broken, missing, rewritten or not signed."""
    from fedai_server.home import open_home
    from fedai_server.ledger import verify

    found = verify(open_home(home), witness)
    late = ", the last line's still missing" if found.unheaded else ""
    heads = f"{found.heads} signed heads beside it{late}, {found.witnessed} of a witness"
    lines = [f"{found.lines} lines, unbroken; {heads}"]
    emit({**vars(found), "intact": True}, as_json=as_json, lines=lines)
