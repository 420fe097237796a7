"""Damaged images under each policy, among sound ones: real files of torchvision's test assets."""

from __future__ import annotations

import io
import shutil
import warnings
from pathlib import Path

import pytest
from PIL import Image

from datahub.core.errors import LayoutError
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.pack import images
from datahub.pack.fetch import Options, pack_files
from datahub.pack.sources import target_of
from datahub.store.dataset import open_dataset
from datahub.store.find import find
from datahub.store.record import SplitEntry
from datahub.store.verify import verify

BROKEN = ("corrupt34_2.jpg", "corrupt34_3.jpg", "corrupt34_4.jpg", "bad_huffman.jpg")


@pytest.fixture
def folder(shared_data: Path, tmp_path: Path) -> Path:
    assets = shared_data / "torchvision-assets"
    (tmp_path / "in/a").mkdir(parents=True)
    for each in (*(assets / "damaged_jpeg").glob("*.jpg"), *(assets / "fakedata/logos").glob("*_pytorch.jpg")):
        shutil.copy(each, tmp_path / "in/a")
    (tmp_path / "in/b").mkdir()
    for each in (*sorted((shared_data / "imagenet-sample").glob("*.JPEG"))[:9], assets / "toosmall_png/heapbof.png"):
        shutil.copy(each, tmp_path / "in/b")
    return tmp_path / "in"


def pack(folder: Path, ref: str, settings: Settings, damaged: str) -> None:
    options = Options(damaged=damaged, jobs=1)
    pack_files(target_of(f"imagefolder:{folder}", Ref.parse(ref), settings), (), settings, options)


@pytest.mark.parametrize("variant", ["published", "max256", "raw", "tiled"])
@pytest.mark.parametrize("policy", ["keep", "quarantine"])
def test_damaged_images_are_kept_or_left_out_and_told(
    folder: Path, settings: Settings, policy: str, variant: str
) -> None:
    if variant == "tiled" and not shutil.which("jpegtran"):
        pytest.skip("jpegtran is not installed")
    pack(folder, f"x@1/{variant}", settings, policy)
    verify(find(settings, Ref("x", "1", variant)), deep=True)
    dataset = open_dataset(f"x@1/{variant}", settings)
    split = dataset["train"]
    names = {Path(each.source).name for each in split.entry.damaged}
    assert {"heapbof.png", "corrupt34_3.jpg", "corrupt34_4.jpg"} <= names
    assert not any(name.endswith(("JPEG", "_pytorch.jpg")) for name in names), "sound images are no damage"
    packed = {Path(sample["source"]).name for sample in split}
    total = sum(1 for each in folder.rglob("*") if each.is_file())
    if policy == "keep":
        assert (len(split), split.entry.gaps) == (total, [])
        assert names <= packed
    else:
        assert len(split) == total - len(names)
        assert not names & packed
        assert len(split.entry.gaps) == len(names)
    for row in range(len(split)):  # keys, offsets and bytes agree across the gaps
        sample = split[row]
        assert sample.key == split.table(["key"])["key"][row].as_py()
        if variant == "published":
            assert sample.encoded == (folder / sample["source"]).read_bytes()


def test_refusing_names_the_image_and_publishes_nothing(folder: Path, settings: Settings) -> None:
    with pytest.raises(LayoutError, match="--damaged keep") as caught:
        pack(folder, "x@1", settings, "refuse")
    assert "a/" in caught.value.path or "b/heapbof" in caught.value.path
    assert not (settings.datasets / "x").exists()


def test_all_damaged_is_an_error(settings: Settings, shared_data: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("corrupt34_3.jpg", "corrupt34_4.jpg"):
        shutil.copy(shared_data / "torchvision-assets/damaged_jpeg" / name, tmp_path / "in")
    with pytest.raises(LayoutError, match="every image of it is damaged"):
        pack(tmp_path / "in", "x@1", settings, "quarantine")


def test_numbers_skip_the_gaps() -> None:
    def entry(gaps: list[int]) -> SplitEntry:
        return SplitEntry(
            samples=6, shards=[], block=1, locate="", index="", fingerprint="", histogram=[], stats=None, gaps=gaps
        )

    for gaps in ([], [0], [5], [0, 1, 2], [0, 3, 4, 9], [1, 3, 5, 7]):
        expected = [number for number in range(30) if number not in gaps]
        assert [entry(gaps).number(row) for row in range(20)] == expected[:20]


@pytest.mark.parametrize("variant", ["max256", "tiled"])
def test_images_that_a_recipe_keeps_are_looked_at_too(settings: Settings, tmp_path: Path, variant: str) -> None:
    if variant == "tiled" and not shutil.which("jpegtran"):
        pytest.skip("jpegtran is not installed")
    (tmp_path / "in").mkdir()
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(buffer, "PNG")
    (tmp_path / "in/sound.png").write_bytes(buffer.getvalue())
    (tmp_path / "in/half.png").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    options = Options(damaged="quarantine", jobs=1, stats="none")
    pack_files(target_of(f"imagefolder:{tmp_path / 'in'}", Ref("x", "1", variant), settings), (), settings, options)
    split = open_dataset(f"x@1/{variant}", settings)["train"]
    assert [each.source for each in split.entry.damaged] == ["half.png"]
    assert [sample["source"] for sample in split] == ["sound.png"]


def test_odd_exif_is_no_damage_and_prints_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
    at = buffer.getvalue().index(b"Exif") + 14
    odd = buffer.getvalue()[:at] + b"\xff" + buffer.getvalue()[at + 1 :]
    before = list(warnings.filters)
    assert images.pixels(odd).shape == (8, 8, 3)  # pytest makes errors of warnings
    assert list(warnings.filters) == before
