"""``list``, ``info`` and ``manifest``, called as the command line calls them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import pytest

from datahub.cli.info import command as info
from datahub.cli.list import command as list_
from datahub.cli.manifest import command as manifest
from datahub.core.errors import BadArgument, ManifestInvalid, UnknownDataset, UnknownVariant, UsageError
from datahub.core.settings import Settings
from datahub.registry import load
from datahub.store import record as records
from tests.registry.sample import TEXT


@dataclass
class FakeApp:
    """What commands need of the app: it keeps what would be shown."""

    settings: Settings
    json: bool = False
    quiet: bool = False
    lines: list[str] = field(default_factory=list)
    documents: list[Any] = field(default_factory=list)

    def echo(self, text: str = "") -> None:
        if not self.json and not self.quiet:
            self.lines.append(text)

    def emit(self, document: object) -> None:
        if self.json:
            self.documents.append(json.loads(json.dumps(document)))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def app(settings: Settings) -> FakeApp:
    return FakeApp(settings)


def call(command: click.Command, app: FakeApp, *arguments: str) -> FakeApp:
    command.main([str(each) for each in arguments], obj=app, standalone_mode=False)
    return app


def pack(settings: Settings, name: str, version: str = "1.0", variant: str = "published", **facts: Any) -> Path:
    """A record in the store, as packing leaves one; shards are not looked at here."""
    path = settings.datasets / name / version / variant
    split = records.SplitEntry(
        samples=1234,
        shards=[],
        block=1000,
        locate="locate-train.npy",
        index="index-train.parquet",
        fingerprint="",
        histogram=[],
        stats=None,
    )
    shard = records.FileEntry(path="x.tar", role="shard", bytes=5_000_000, sha256="", blocks="")
    record = records.Record(
        manifest=records.ManifestEntry(name=name, version=version, digest=""),
        variant=variant,
        plan="",
        packer=records.PackerEntry(),
        files=[shard],
        fields={},
        splits={"train": split},
        classes=["a", "b"],
        **facts,
    )
    records.write(path, record)
    return path


def test_list_shows_a_row_for_each_dataset(app: FakeApp) -> None:
    lines = call(list_, app).lines
    assert lines[0].split() == ["NAME", "TASK", "CLASSES", "SAMPLES", "DOWNLOAD", "LICENCE", "TRIED"]
    row = next(line for line in lines if line.startswith("mnist "))
    assert re.split(r"\s{2,}", row) == [
        "mnist", "image-classification", "10", "70,000", "11.6 MB", "CC-BY-SA-3.0", "published files",
    ]  # fmt: skip
    assert max(len(line) for line in lines) <= 100


def test_list_is_narrowed_and_suggests(app: FakeApp) -> None:
    assert [line.split()[0] for line in call(list_, app, "cifar").lines] == ["NAME", "cifar10", "cifar100"]
    app.lines.clear()
    assert call(list_, app, "minst").lines == ["nothing matches; did you mean mnist or qmnist or kmnist?"]
    app.lines.clear()
    assert [line.split()[0] for line in call(list_, app, "--licence", "mit").lines] == ["NAME", "fashion-mnist"]
    app.lines.clear()
    assert call(list_, app, "--task", "detection").lines == ["nothing matches"]


def test_list_as_json(app: FakeApp) -> None:
    app.json = True
    document = call(list_, app, "mnist", "--licence", "cc-by-sa-3").documents[0]
    assert [each["name"] for each in document["datasets"]] == ["mnist"]
    assert document["datasets"][0]["splits"] == {"train": 60000, "test": 10000}
    assert document["broken"] == []
    assert app.lines == []


def test_list_notes_a_broken_manifest_and_shows_the_rest(
    app: FakeApp, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.toml").write_text(TEXT.replace("test = 10_000", "test = 0"))
    (tmp_path / "good.toml").write_text(TEXT.replace('"digits"', '"other"').replace('version = "1.0"', 'version = "2"'))
    (tmp_path / "more.toml").write_text(TEXT.replace('"digits"', '"other"'))
    app.settings = replace(app.settings, manifests=(tmp_path,))
    assert [line.split()[0] for line in call(list_, app).lines].count("mnist") == 1
    assert re.findall(r"other@\S+", app.text) == ["other@1.0", "other@2"], "versions show where there are several"
    assert re.match(r"left out: .*bad\.toml has 1 problem: splits\.test: .*\n$", capsys.readouterr().err)
    app.json = True
    broken = call(list_, app).documents[0]["broken"]
    assert broken[0]["path"] == str(tmp_path / "bad.toml")
    assert broken[0]["problems"][0]["place"] == "splits.test"


def test_list_local_shows_what_is_packed_and_where(app: FakeApp) -> None:
    assert "nothing is packed" in call(list_, app, "--local").text
    app.lines.clear()
    path = pack(app.settings, "mnist", title="MNIST", task="image-classification", licence="MIT")
    pack(app.settings, "toy", variant="tiled")
    lines = call(list_, app, "--local").lines
    assert re.split(r"\s{2,}", lines[1]) == ["mnist@1.0/published", "1,234", "5.0 MB", str(path)]
    assert lines[2].startswith("toy@1.0/tiled")
    app.lines.clear()
    assert len(call(list_, app, "--local", "--licence", "mit").lines) == 2
    app.lines.clear()
    assert "nothing that matches" in call(list_, app, "--local", "cifar").text
    app.json = True
    found = call(list_, app, "--local").documents[0]["datasets"]
    assert [each["ref"] for each in found] == ["mnist@1.0/published", "toy@1.0/tiled"]
    assert found[0]["splits"] == {"train": 1234}


def test_info_shows_every_fact(app: FakeApp) -> None:
    text = call(info, app, "mnist").text
    for fact in (
        "mnist@1.0/published  MNIST",
        "http://yann.lecun.com/exdb/mnist/",
        "CC-BY-SA-3.0",
        "train 60,000, test 10,000",
        "10: 0, 1, 2",
        "published files",
        "files: 4, 11.6 MB to download",
        "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
        "@misc{lecun2010mnist,",
        "not packed; run `datahub fetch mnist`",
        "published (default)",
    ):
        assert fact in text
    assert all(len(line) <= 110 for line in app.lines)


def test_info_of_a_variant_shows_its_own_splits_and_classes(app: FakeApp) -> None:
    text = call(info, app, "emnist/letters").text
    assert "train 124,800, test 20,800" in text
    assert "27: N/A, a, b" in text
    assert "balanced (default), byclass, bymerge, letters, digits, mnist" in text
    assert "run `datahub fetch emnist/letters`" in text
    with pytest.raises(UnknownVariant, match="known: balanced"):
        call(info, app, "emnist/capitals")
    with pytest.raises(UnknownDataset, match="did you mean emnist"):
        call(info, app, "emnst")


def test_info_of_a_variant_shows_its_own_files_and_what_classes_are_called(app: FakeApp) -> None:
    text = call(info, app, "imagenette/160").text
    assert "10: n01440764 (tench), n02102040 (English springer)" in text
    assert "files: 1, 99.0 MB to download" in text
    assert "imagenette2-160.tgz" in text and "imagenette2-320.tgz" not in text
    app.json = True
    document = call(info, app, "imagenette/160").documents[0]
    assert [each["filename"] for each in document["files"]] == ["imagenette2-160.tgz"]
    assert document["download_bytes"] == 99003388
    assert document["words"][0] == "tench"


def test_info_of_a_variant_with_classes_of_its_own_has_no_words_for_them(app: FakeApp, tmp_path: Path) -> None:
    path = tmp_path / "digits.toml"
    path.write_text(TEXT.replace('classes = ["zero", "one"]', 'classes = ["zero", "one"]\nwords = ["nought", "unit"]'))
    app.settings = replace(app.settings, manifests=(path,))
    assert "2: zero (nought), one (unit)" in call(info, app, "digits").text
    app.lines.clear()
    assert "1: zero" in call(info, app, "digits/few").text
    assert "nought" not in app.text
    app.json = True
    assert call(info, app, "digits/few").documents[0]["words"] == []


def test_info_says_what_is_not_known(app: FakeApp) -> None:
    text = call(info, app, "qmnist").text
    assert "files: 6, at least 1.9 MB to download" in text
    app.lines.clear()
    text = call(info, app, "cifar100").text
    assert "100: apple" in text and "and 80 more" in " ".join(text.split())
    assert "none found" in text


def test_info_says_where_it_is_on_this_disk(app: FakeApp) -> None:
    path = pack(app.settings, "mnist")
    pack(app.settings, "mnist", version="0.1")
    pack(app.settings, "kmnist")
    text = call(info, app, "mnist").text
    assert f"{path} (published, 5.0 MB)" in text
    assert "0.1" not in text and "not packed" not in text
    app.json = True
    document = call(info, app, "mnist").documents[0]
    assert [each["path"] for each in document["local"]] == [str(path)]
    assert document["download_bytes"] == 11594722
    assert document["files"][0]["sha256"].startswith("440fcabf")
    assert document["licence"]["id"] == "CC-BY-SA-3.0"
    assert document["layout"]["kind"] == "idx"


def test_info_of_what_only_the_store_knows(app: FakeApp) -> None:
    path = pack(app.settings, "toy", title="A toy", task="image-classification")
    text = call(info, app, "toy").text
    assert "toy@1.0/published  A toy" in text
    assert str(path) in text and "train 1,234" in text and "2: a, b" in text
    pack(app.settings, "mnist", variant="mine")
    app.lines.clear()
    assert "mnist@1.0/mine" in call(info, app, "mnist/mine").text


def test_info_of_a_broken_manifest_reports_its_problems(app: FakeApp, tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(TEXT.replace("test = 10_000", "test = 0"))
    app.settings = replace(app.settings, manifests=(bad,))
    with pytest.raises(ManifestInvalid, match=r"splits\.test"):
        call(info, app, "digits")


def fill_in(text: str) -> str:
    for name in ("train-images", "train-labels", "test-images", "test-labels"):
        text = text.replace('filename = ""', f'filename = "{name}.gz"', 1)
        text = text.replace('mirrors = [""]', f'mirrors = ["https://example.org/{name}.gz"]', 1)
    text = text.replace('title = ""', 'title = "Mine"').replace('id = ""', 'id = "MIT"')
    text = text.replace('homepage = ""', 'homepage = "https://example.org"')
    return text.replace("train = 0", "train = 100").replace("test = 0", "test = 10")


def test_a_new_manifest_says_what_is_missing_and_passes_when_filled_in(app: FakeApp, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    call(manifest, app, "new", "mine", "-o", path)
    assert str(path) in app.text
    with pytest.raises(ManifestInvalid) as caught:
        load(path)
    places = {each.place for each in caught.value.problems}
    assert {"title", "splits.train", "files[0].filename", "files[3].mirrors[0]", "licence.id"} <= places
    assert all("is empty" in each.message or "not 0" in each.message for each in caught.value.problems)
    path.write_text(fill_in(path.read_text()))
    app.lines.clear()
    call(manifest, app, "check", path)
    assert app.lines == [f"{path}: ok (mine@1.0: 4 files, 2 splits, 0 classes, 1 variant)"]


def test_a_new_manifest_overwrites_nothing(app: FakeApp, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    with pytest.raises(BadArgument, match="exists already"):
        call(manifest, app, "new", "mine", "-o", path)
    assert path.read_text() == "mine"
    with pytest.raises(BadArgument, match="not a dataset's name"):
        call(manifest, app, "new", "Not Mine")
    assert app.lines == []


def test_a_new_manifest_is_printed_without_o(app: FakeApp) -> None:
    assert 'name = "mine"' in call(manifest, app, "new", "mine").text


def test_check_reports_every_problem_of_every_file(app: FakeApp, tmp_path: Path) -> None:
    good, bad, worse, absent = (tmp_path / f"{name}.toml" for name in ("good", "bad", "worse", "absent"))
    good.write_text(TEXT)
    bad.write_text(TEXT.replace("test = 10_000", "test = 0").replace('title = "Digits"', "title = 5"))
    worse.write_text("name = \n")
    with pytest.raises(UsageError, match="4 problems in 3 manifests of 4") as caught:
        call(manifest, app, "check", good, bad, worse, absent)
    assert caught.value.exit_code == 2
    assert app.lines[0] == f"{good}: ok (digits@1.0: 2 files, 2 splits, 2 classes, 2 variants)"
    assert app.lines[1].startswith(f"{bad}: title: must be text")
    assert app.lines[2].startswith(f"{bad}: splits.test: must be")
    assert app.lines[3].startswith(f"{worse}: line 1, column 8: not TOML")
    assert app.lines[4].startswith(f"{absent}: the file: cannot read")
    app.json = True
    with pytest.raises(UsageError):
        call(manifest, app, "check", tmp_path)
    assert [len(each["problems"]) for each in app.documents[0]] == [2, 0, 1]


def test_check_of_an_empty_folder_is_refused(app: FakeApp, tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match=r"holds no \*\.toml"):
        call(manifest, app, "check", tmp_path)
