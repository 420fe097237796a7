"""What every command shares: the lazy group, the options that work everywhere, output, errors and exit codes."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, cast

import click

from datahub.core.errors import DatahubError, from_oserror
from datahub.core.events import Listener, ignore
from datahub.core.settings import Origin, Settings, resolve

COMMANDS = {
    "list": "Known datasets, and how each was tried.",
    "info": "Splits, sizes, licence, citation, mirrors, and where it is on this disk.",
    "fetch": "Download, verify and pack datasets.",
    "pack": "Pack any source, or one variant into another.",
    "verify": "Check a packed dataset against its digests.",
    "rm": "Remove a packed dataset.",
    "gc": "Remove what killed runs left behind.",
    "path": "Print where a packed dataset is.",
    "export": "Copy a packed dataset to a folder or URL.",
    "train": "The reference training job: any torchvision model, torchrun-ready.",
    "bench": "Measure a loader here and name its bottleneck.",
    "estimate": "On paper: disk, network and processors that nodes need.",
    "preview": "A contact sheet: samples with classes, boxes and masks, augmented if asked.",
    "replay": "The exact batch of an epoch and step, as a picture.",
    "demo": "The whole line: get, verify, pack, stream, train, look.",
    "serve": "The shared cache server.",
    "cache": "What a cache server holds and is to keep: status, warm, pin, lease, evict.",
    "manifest": "Write and check manifests.",
    "config": "Every setting and where its value came from.",
    "doctor": "Check this machine: clashes, tools, disk, locks.",
}
"""Command -> the line `--help` shows. Kept here so that help imports no command."""


class App:
    """What a command gets by ``@click.pass_obj``."""

    def __init__(self) -> None:
        self.flags: dict[str, Any] = {}
        self._settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """Flags, environment, config file and defaults, resolved on first use."""
        if self._settings is None:
            names = ("home", "offline", "from_")
            found = resolve({name: self.flags.get(name) for name in names}, os.environ)
            extra = tuple(Path(each).absolute() for each in self.flags.get("manifest", ()))
            if extra:
                origins = {**found.origins, "manifests": Origin("flag", "--manifest")}
                found = replace(found, manifests=extra + found.manifests, origins=origins)
            self._settings = found
        return self._settings

    @property
    def json(self) -> bool:
        return bool(self.flags.get("json"))

    @property
    def quiet(self) -> bool:
        return bool(self.flags.get("quiet"))

    @property
    def debug(self) -> bool:
        return bool(self.flags.get("debug"))

    def echo(self, text: str = "") -> None:
        """A line for people: on stdout, unless --quiet or --json was given."""
        if not self.quiet and not self.json:
            click.echo(text)

    def emit(self, document: object) -> None:
        """A JSON document on stdout, when --json was given."""
        if self.json:
            click.echo(json.dumps(document, indent=2, default=str))

    def confirm(self, question: str, yes: bool) -> None:
        """Ask before something large or final; without a terminal, `-y` is required."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise click.UsageError(f"{question} Say -y to go on.")
        click.confirm(question, abort=True, err=True)

    @contextmanager
    def listener(self) -> Iterator[Listener]:
        """Where progress goes: a bar on a terminal, plain lines otherwise, nowhere with --quiet or --json."""
        if self.quiet or self.json:
            yield ignore
            return
        from datahub.cli.progress import showing

        with showing(verbose=bool(self.flags.get("verbose"))) as listen:
            yield listen


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value in (None, False, ()):
        return
    app = context.find_root().ensure_object(App)
    if parameter.multiple:
        value = (*app.flags.get(str(parameter.name), ()), *value)
    app.flags[str(parameter.name)] = value


def everywhere() -> list[click.Option]:
    """The options that every command takes, before or after its name."""

    def option(*names: str, **settings: Any) -> click.Option:
        return click.Option(list(names), expose_value=False, callback=_remember, **settings)

    return [
        option("--home", metavar="DIR", help="The store. [DATAHUB_HOME]"),
        option(
            "--manifest", multiple=True, metavar="FILE", help="Add a manifest or a folder of them. [DATAHUB_MANIFESTS]"
        ),
        option("--offline", is_flag=True, help="Never use the network. [DATAHUB_OFFLINE]"),
        option("--json", is_flag=True, help="JSON on stdout; errors as JSON on stderr."),
        option("-q", "--quiet", is_flag=True, help="Only errors."),
        option("-v", "--verbose", is_flag=True, help="More detail."),
        option("--debug", is_flag=True, help="Tracebacks, and everything said."),
    ]


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = cast(click.Command, import_module(f"datahub.cli.{cmd_name}").command)
        leaves = list(command.commands.values()) if isinstance(command, click.Group) else []
        for each in [command, *leaves]:
            taken = {name for parameter in each.params for name in parameter.opts}
            each.params += [option for option in everywhere() if not taken.intersection(option.opts)]
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"no command is called {args[0]!r}{hint}", ctx) from None


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"datahub {version('datahub')}")
        context.exit()


root = LazyGroup(
    name="datahub",
    help="Public vision datasets by name: download, verify, pack, stream. REF is NAME[@VERSION][/VARIANT].",
    params=[
        *everywhere(),
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version."
        ),
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
    invoke_without_command=False,
)


def run(group: click.Group, arguments: list[str]) -> int:
    """Run a command; returns the exit code. Every failure is one line on stderr (or a JSON object with --json)."""
    app = App()
    _terminate_like_interrupt()
    if "--debug" in arguments:
        logging.basicConfig(level=logging.DEBUG)
    try:
        # Not group.main: it prints a blank line of its own when it is interrupted.
        with group.make_context("datahub", arguments or ["--help"], obj=app) as context:
            group.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        return int(stop.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Exception, KeyboardInterrupt, _Terminated) as error:  # noqa: BLE001 - a bug, too, is told in one line
        failure = _describe(error)
        if "--debug" in arguments:
            traceback.print_exception(error)
        _say(failure, as_json=app.json or "--json" in arguments)
        return failure.code
    return 0


class _Failure(NamedTuple):
    error: str
    message: str
    next: str
    retryable: bool
    code: int


def _describe(error: BaseException) -> _Failure:
    """What a person (or a program, with --json) is told about ``error``."""
    if isinstance(error, OSError) and not isinstance(error, DatahubError):
        error = from_oserror(error, error.filename or "a file")
    name = type(error).__name__
    if isinstance(error, DatahubError):
        return _Failure(name, error.message, error.next_step, error.retryable, error.exit_code)
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return _Failure("Interrupted", "interrupted", "run it again to go on", True, 130)
    if isinstance(error, _Terminated):
        return _Failure("Terminated", "terminated", "run it again to go on", True, 143)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "datahub"
        where = path.removeprefix("datahub").strip()
        message = error.format_message()
        return _Failure("UsageError", f"{where}: {message}" if where else message, f"see {path} --help", False, 2)
    return _Failure(name, f"a bug in datahub: {name}: {error}", "run it with --debug and report what it says", False, 1)


def _say(failure: _Failure, as_json: bool) -> None:
    if as_json:
        document = failure._asdict()
        del document["code"]
        click.echo(json.dumps(document), err=True)
        return
    line = f"{failure.message}; {failure.next}" if failure.next else failure.message
    click.echo("datahub: " + " ".join(line.split()), err=True)


class _Terminated(BaseException):
    """SIGTERM, raised in the main thread so that clean-up runs as for Ctrl-C."""


def _terminate_like_interrupt() -> None:
    def on_term(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, on_term)
