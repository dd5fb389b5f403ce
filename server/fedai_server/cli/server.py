"""`fedai server`: set up the coordinator's machine, run it, admit sites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedai.cli.output import JsonOption, emit, table, when
from fedai.errors import ConfigError

if TYPE_CHECKING:
    from fedai_server.certificates import Given
    from fedai_server.processes import Child

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help="At the coordinator: set up, start, admit sites.",
)

Home = Annotated[Path, typer.Argument(help="The server's home folder.", metavar="HOME")]
CertificateOption = Annotated[
    Path | None, typer.Option(help="The server's certificate from it, then those between (PEM).")
]
KeyOption = Annotated[Path | None, typer.Option(help="The certificate's key (PEM, no password).")]
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

    host, port = split_host_port(public)
    given = _given(authority, certificate, key)
    made = init_home(
        home, public_host=host, public_port=port, loopback_port=loopback_port, names=name or (), given=given
    )
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

    opened = open_home(home)
    hosts = (opened.settings.public_host, *opened.settings.names)
    given = _given(opened.authority, certificate, key) if certificate or key else None
    if given is not None and opened.settings.authority == "consortium":
        certificates.take(opened.pki, given, hosts)
    elif given is None and opened.settings.authority == "own":
        pki.make_server_certificate(opened.pki, hosts)
    else:
        ours = opened.settings.authority == "own"
        raise ConfigError(
            "sites trust this home's own authority, which signs its certificate" if ours
            else "this home's certificate comes from the consortium's authority",
            hint="leave out --certificate and --key" if ours else "give the new one: --certificate and --key",
        )  # fmt: skip
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
