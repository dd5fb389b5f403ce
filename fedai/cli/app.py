"""`fedai`: one file per noun. Nouns of the site and of the server are found through entry points and are
imported only when they are called, so that `--help` answers at once and neither side loads the other."""

from __future__ import annotations

import os
import sys
import traceback
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import typer
import typer.core

from fedai import __version__
from fedai.cli.output import emit_error
from fedai.errors import BUG_EXIT_CODE, INTERRUPTED_EXIT_CODE, ConfigError, FedaiError

DEBUG = "FEDAI_DEBUG"
typer.core.HAS_RICH = False  # helps are plain text: with it typer writes `\\[default: ...]`, for rich to read
OWN_COMMANDS = {
    "study": ("fedai.cli.study:app", "Check, show and sign a study file; make keys."),
    "compare": ("fedai.cli.compare:app", "Compare the models of a run, with intervals."),
    "report": ("fedai.cli.report:app", "Write a run's report as one HTML file."),
    "model": ("fedai.cli.model:app", "A run's models: list, show, export."),
    "simulate": ("fedai.cli.simulate:app", "A study's rounds in one process, without a server."),
    "demo": ("fedai.cli.demo:app", "Three invented hospitals, one server, one compared model."),
}
ENTRY_POINT_HELP = {
    "site": "At a hospital: data in, approvals, the agent, the ledger.",
    "server": "At the coordinator: set up, start, admit sites.",
    "run": "At the coordinator: start, watch, list, show and stop runs.",
}


class _Argument(typer.core.TyperArgument):
    """An argument that keeps its help: click 8.5 has one of its own and empties that of typer 0.20."""

    def __init__(self, *, help: str | None = None, **more: Any) -> None:
        super().__init__(help=help, **more)
        self.told = help or ""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        name, said = super().get_help_record(ctx) or ("", "")
        return name, said if self.help else f"{self.told}  {said}".strip()


typer.main.TyperArgument = _Argument  # type: ignore[attr-defined]


class _Nouns(typer.core.TyperGroup):
    """The top level: knows the names, loads a noun's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = {point.name for point in entry_points(group="fedai.commands")}
        return sorted(found | set(OWN_COMMANDS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in OWN_COMMANDS:
            module, _, attribute = OWN_COMMANDS[cmd_name][0].partition(":")
            return _click_command(getattr(import_module(module), attribute), cmd_name)
        for point in entry_points(group="fedai.commands", name=cmd_name):
            return _click_command(point.load(), cmd_name)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self._summary(name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _summary(self, name: str) -> str:
        return OWN_COMMANDS[name][1] if name in OWN_COMMANDS else ENTRY_POINT_HELP.get(name, "")


def _click_command(app: typer.Typer, name: str) -> click.Command:
    command = typer.main.get_command(app)
    command.name = name
    _suggest_once(command)
    return command


def _suggest_once(command: click.Command) -> None:
    """Click says what a mistyped verb may have meant; typer would say it once more."""
    if isinstance(command, typer.core.TyperGroup):
        command.suggest_commands = False
        for verb in command.commands.values():
            _suggest_once(verb)


@click.command(cls=_Nouns, name="fedai", no_args_is_help=True, rich_markup_mode=None)
@click.version_option(__version__, prog_name="fedai")
def fedai() -> None:
    """Federated learning for radiology in which each hospital decides what leaves, and can prove it."""


def main() -> None:
    """Entry point of the console command; turns errors into exit codes (see fedai/errors.py)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and give its exit code."""
    as_json = "--json" in arguments
    try:
        result = fedai.main(args=arguments, prog_name="fedai", standalone_mode=False)
    except FedaiError as error:
        emit_error(error, as_json=as_json)
        return error.exit_code
    except click.exceptions.Abort:
        return INTERRUPTED_EXIT_CODE
    except click.ClickException as error:
        if as_json:
            emit_error(ConfigError(error.format_message(), hint="see --help"), as_json=True)
        else:
            error.show()
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE
    except Exception as error:  # noqa: BLE001  the process boundary
        return _end(error, as_json=as_json)
    return result if isinstance(result, int) else 0


def _print_frames(error: BaseException | None) -> None:
    """Where it happened and of what kind, without a message: that may hold what a file said."""
    print("Traceback, the innermost last, without messages:", file=sys.stderr)
    while error is not None:
        for frame in traceback.extract_tb(error.__traceback__):
            print(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}', file=sys.stderr)
        print(f"{type(error).__module__}.{type(error).__name__}", file=sys.stderr)
        error = error.__cause__ or error.__context__


def _final_name(path: str) -> str:
    """What a file that is being written will be called: `a.json` of `a.json.partial` or `.a.json.partial`."""
    if not path.endswith(".partial"):
        return path
    return str(Path(path).with_name(Path(path).stem.removeprefix(".")))


def _end(error: Exception, *, as_json: bool) -> int:
    """Name a file that the system won't open or a disk that is full; what is left is a bug, and says so."""
    if isinstance(error, OSError) and error.filename is not None:
        name = _final_name(str(error.filename2 or error.filename))
        told = ConfigError(f"{error.strerror}: {name}", hint="check path, permissions and free space")
        emit_error(told, as_json=as_json)
        return told.exit_code
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
    else:
        _print_frames(error)
    hint = f"please report the lines on stderr; {DEBUG}=1 shows messages, which may hold what a file said"
    emit_error(FedaiError("this is a bug in fedai", hint=hint), as_json=as_json)
    return BUG_EXIT_CODE
