from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from datahub.cli import app as application
from datahub.cli.app import COMMANDS, App, root, run
from datahub.core.errors import DiskFull, HttpError

HEAVY = ("numpy", "torch", "pyarrow", "urllib3", "fsspec", "PIL", "cv2", "rich", "webdataset", "aiohttp")


def heavy_after(*arguments: str) -> set[str]:
    code = (
        "import sys\nfrom datahub.cli import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', *[each for each in {HEAVY!r} if each in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("arguments", [("--help",), ("list",), ("info", "mnist"), ("config",), ("fetch", "--help")])
def test_light_commands_import_nothing_heavy(arguments: tuple[str, ...], home: Path) -> None:
    assert heavy_after(*arguments) == set()


def test_every_listed_command_loads_and_has_help(cli) -> None:
    for name in COMMANDS:
        result = cli(name, "--help")
        assert result.code == 0, result.err
        assert "--offline" in result.out
        assert "Usage: datahub" in result.out


def test_no_arguments_shows_help(cli) -> None:
    assert "Commands:" in cli().out


def test_global_options_stand_before_or_after_the_command(cli, tmp_path: Path) -> None:
    before = cli("--home", tmp_path / "x", "--json", "config")
    after = cli("config", "--json", "--home", tmp_path / "x")
    assert before.out == after.out
    assert before.json["settings"]["home"] == {
        "value": str(tmp_path / "x"), "from": "flag --home", "variable": "DATAHUB_HOME",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("confg",), "did you mean config?"),
        (("config", "--bogus"), "--bogus"),
        (("fetch",), "REF"),
        (("fetch", "no such"), "not a dataset reference"),
        (("fetch", "mnits"), "did you mean mnist"),
        (("fetch", "mnist@9.9"), "9.9"),
        (("fetch", "mnist/nope"), "nope"),
        (("fetch", "mnist", "-j", "0"), "-j"),
        (("pack", "hf:x", "y"), "not supported by this version"),
        (("pack", "imagefolder:x", "y"), "no such file"),
        (("pack", "bogus:x", "y"), "bogus"),
        (("pack", "shapes:none", "y"), "shapes:5000"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(cli, arguments: tuple[str, ...], says: str) -> None:
    result = cli(*arguments)
    assert result.code == 2
    assert says in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""


def test_errors_as_json(cli) -> None:
    result = cli("fetch", "mnits", "--json")
    document = json.loads(result.err)
    assert result.code == 2
    assert set(document) == {"error", "message", "next", "retryable"}
    assert document["error"] == "UnknownDataset"
    assert document["retryable"] is False


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (DiskFull("/x"), 5),
        (HttpError("http://x/y", 503), 4),
        (KeyboardInterrupt(), 130),
        (application._Terminated(), 143),
        (OSError(28, "No space left on device", "/x"), 5),
        (ZeroDivisionError("oops"), 1),
        (click.Abort(), 130),
    ],
)
def test_every_failure_has_its_code_and_one_line(raised: BaseException, code: int, capfd) -> None:
    @click.command("fail")
    @click.pass_obj
    def fail(app: App) -> None:
        raise raised

    group = click.Group("datahub", commands={"fail": fail})
    assert run(group, ["fail"]) == code
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("datahub: ")


def test_version(cli) -> None:
    assert cli("--version").out.startswith("datahub 0.")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_cleanly(number: signal.Signals, code: int, tmp_path: Path) -> None:
    script = (
        "import signal, sys, time, click\nfrom datahub.cli.app import run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs start with it ignored\n"
        "@click.command('wait')\ndef wait():\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "sys.exit(run(click.Group('datahub', commands={'wait': wait}), ['wait']))"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.1)
    os.kill(child.pid, number)
    _, err = child.communicate(timeout=10)
    assert child.returncode == code
    assert err.count("\n") == 1


def test_a_closed_pipe_is_no_error(home: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    child = subprocess.Popen([sys.executable, "-m", "datahub", "--help"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert child.communicate(timeout=30)[1] == b""
    assert child.returncode == 0


def test_commands_table_has_a_module_each() -> None:
    folder = Path(application.__file__).parent
    modules = {each.stem for each in folder.glob("*.py")} - {
        "__init__",
        "app",
        "packing",
        "pictures",
        "progress",
        "summary",
        "tables",
    }
    assert modules == set(COMMANDS)
    assert root.list_commands(click.Context(root)) == list(COMMANDS)
