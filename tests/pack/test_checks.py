"""What packing would refuse is refused before anything is downloaded, and a dry run says what then happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datahub.cli.app import root, run
from datahub.core.errors import BadArgument, DiskFull, ManualFiles, MissingTool
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack import plan
from datahub.pack import run as running
from datahub.pack.authoring import Writer
from datahub.pack.fetch import Options, fetch, pack_files
from datahub.pack.sources import target_of


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"executor": "nope://x"}, BadArgument),
        ({"task": "3/2"}, BadArgument),
        ({"damaged": "nope"}, BadArgument),
        ({"to": "memory://x", "executor": "dask://"}, BadArgument),
        ({}, ManualFiles),
    ],
)
def test_options_that_are_none_come_before_the_files(
    settings: Settings, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        fetch(Ref("imagenet"), settings, Options(accept_licence=True, **options))


def test_a_missing_program_comes_before_the_files(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingTool):
        fetch(Ref("imagenet", None, "tiled"), settings, Options(accept_licence=True))


def test_memory_is_written_by_this_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FEW", 1)
    wanted = target_of("shapes:20", Ref("x", "1"), settings)
    made = pack_files(wanted, (), settings, Options(to="memory://checks", jobs=2))
    assert made == f"memory://checks/x/1/{wanted.variant}"


def test_a_dry_run_of_a_variant_says_it_is_made_of_what_is_packed(
    mnist_store: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    home = mnist_store.home
    assert run(root, ["fetch", "mnist/raw", "-n", "--offline", "--stats", "none", "--home", str(home)]) == 0
    said = capsys.readouterr().out
    assert "mnist@1.0/raw, from published as it is packed" in said and "train 60,000" in said


def test_own_data_does_not_pass_for_a_published_dataset(settings: Settings, tmp_path: Path) -> None:
    for name in ("a/0.png", "b/1.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (3, 3)).save(tmp_path / "in" / name)
    source = f"imagefolder:{tmp_path / 'in'}"
    with pytest.raises(BadArgument, match="published dataset"):
        target_of(source, Ref("mnist", "1.0"), settings)
    with pytest.raises(BadArgument, match="published dataset"):
        Writer("mnist@1.0", settings=settings)
    assert target_of(source, Ref("mnist", "mine"), settings).ref == Ref("mnist", "mine", "published")


def test_a_list_that_a_crash_cut_off_is_made_again(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (3, 3)).save(tmp_path / "in/0.png")
    source = f"imagefolder:{tmp_path / 'in'}"
    target_of(source, Ref("x", "1"), settings)
    (members,) = settings.home.glob("derived/files-*/members.arrow")
    whole = members.read_bytes()
    members.write_bytes(whole[:40])
    assert target_of(source, Ref("x", "1"), settings).source is not None
    assert members.read_bytes() == whole


def test_a_full_disk_does_not_matter_to_what_is_written(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = target_of("shapes:20", Ref("x", "1"), settings)
    made = pack_files(wanted, (), settings, Options(jobs=1))
    monkeypatch.setattr(plan, "_free", lambda folder: 0)
    assert pack_files(wanted, (), settings, Options(jobs=1)) == made
    with pytest.raises(DiskFull):
        pack_files(target_of("shapes:20", Ref("y", "1"), settings), (), settings, Options(jobs=1))
