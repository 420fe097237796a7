"""Videos as a field: written, read as bytes, shown as clips, and refused where they are damaged.

What decodes needs TorchCodec and FFmpeg's libraries: ``pip install -e '.[video]'`` and Debian's ``ffmpeg``.
"""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datahub import transforms as T
from datahub.core.errors import BadArgument, DamagedSample, MissingExtra, MissingLibrary
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.loader.streaming import StreamingLoader
from datahub.pack.authoring import Writer
from datahub.store.find import find
from datahub.store.verify import verify
from datahub.tensor.clips import decoder_of
from datahub.tensor.device.rehearsal import Rehearsal
from datahub.tensor.draws import Draws

COUNT, STEP = 12, 4
FIELDS = {"clip": "video", "label": "label"}


def length(number: int) -> int:
    """Frames of a video; some are shorter than the clips that are asked for."""
    return 5 + 4 * number


def film(path: Path, frames: int, size: tuple[int, int] = (48, 32)) -> Path:
    """A video whose k-th frame is gray of the level STEP * k."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, size)
    assert writer.isOpened()
    for at in range(frames):
        frame = np.full((size[1], size[0], 3), STEP * at, np.uint8)
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("films")
    return [film(folder / f"{number:02d}.avi", length(number)) for number in range(COUNT)]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, films: list[Path]) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("videos") / "home")
    with Writer("films@1.0", FIELDS, settings=settings) as writer:
        for number, path in enumerate(films):
            writer.write(source=f"{number}", clip=path if number % 2 else path.read_bytes(), label=number % 3)
    return settings


@pytest.fixture(scope="module")
def codec() -> None:
    try:
        decoder_of()
    except (MissingExtra, MissingLibrary) as error:
        pytest.skip(f"{error.message}; {error.next_step}")


def load(settings: Settings, ref: str = "films", **options: Any) -> StreamingLoader:
    return StreamingLoader(ref, settings=settings, **{"batch_size": 5, "num_workers": 2, "timeout": 60, **options})


def shown(clip: torch.Tensor) -> list[int]:
    """The numbers of a clip's frames."""
    return torch.round(clip.float().mean((1, 2, 3)) / STEP).int().tolist()


# -- without a decoder ------------------------------------------------------------------------------------------------


def test_videos_are_stored_as_published(written: Settings, films: list[Path]) -> None:
    verify(find(written, Ref("films")), deep=True)
    dataset = open_dataset("films", written)
    assert dataset.record.fields["clip"].extension == "clip.mp4"
    for sample in dataset["train"]:
        number = int(sample["source"])
        assert sample["clip"] == films[number].read_bytes() and sample["label"] == number % 3
        assert sample["image"].shape == (3, 32, 48) and sample["image"].max() <= 2


def test_without_a_clip_videos_are_bytes_on_request(written: Settings, films: list[Path]) -> None:
    with load(written) as loader:
        assert "clip" not in next(iter(loader))
    with load(written, fields=("clip", "source")) as loader:
        seen = {number: clip for clips, names in loader for clip, number in zip(clips, names, strict=True)}
    assert seen == {str(number): path.read_bytes() for number, path in enumerate(films)}


@pytest.mark.parametrize("data", [b"", b"#EXTM3U\nhttp://host/a.ts\n", b"RIFF\0\0\0\0WAVE", b"\x89PNG\r\n\x1a\n" * 9])
def test_what_is_no_video_is_refused_when_it_is_written(settings: Settings, data: bytes) -> None:
    with Writer("films@1.0", FIELDS, settings=settings) as writer, pytest.raises(BadArgument, match="clip"):
        try:
            writer.write(clip=data, label=0)
        finally:
            writer.discard()


def test_an_image_is_left_out_beside_videos_alone(settings: Settings, films: list[Path]) -> None:
    writer = Writer("films@1.0", {"label": "label"}, settings=settings)
    with pytest.raises(BadArgument, match="is missing"):
        writer.write(label=0)
    writer.discard()
    writer = Writer("films@1.0", FIELDS, settings=settings)
    with pytest.raises(BadArgument, match="first frame"):
        writer.write(clip=films[0].read_bytes()[:40], label=0)
    writer.discard()


@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 9), st.integers(0, 10**9))
def test_indices_are_even_and_end_with_the_video(count: int, frames: int, stride: int, position: int) -> None:
    draws = Draws(3, 1, np.array([position]))
    for start in ("random", "middle"):
        found = T.Clip(frames, stride, start).indices(count, draws)  # type: ignore[arg-type]
        assert len(found) == frames and found[0] >= 0 and found[-1] < count
        whole = (frames - 1) * stride + 1
        first = found[0] if count >= whole else 0
        assert found.tolist() == [min(first + at * stride, count - 1) for at in range(frames)]


def test_every_start_is_drawn() -> None:
    clip = T.Clip(frames=4, stride=2)
    starts = np.array([clip.indices(11, Draws(0, 0, np.array([at])))[0] for at in range(2000)])
    assert np.bincount(starts).tolist() == pytest.approx([400] * 5, rel=0.2)


@pytest.mark.parametrize(
    "options", [{"frames": 0}, {"stride": True}, {"start": "end"}, {"transform": "imagenet_eval"}, {"frames": 2.0}]
)
def test_clips_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(BadArgument, match=next(iter(options))):
        T.Clip(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clip": 16}, "clip"),
        ({"clip": T.Clip(field="label")}, "label"),
        ({"clip": T.Clip(), "fields": ("image", "label")}, "does not show the clip"),
    ],
)
def test_a_loader_refuses_what_it_cannot_show(written: Settings, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        load(written, **options)


def test_what_is_missing_is_named(written: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(error: Exception) -> None:
        def imported(name: str, *rest: Any) -> Any:
            if name.startswith("torchcodec"):
                raise error
            return real(name, *rest)

        monkeypatch.setattr(builtins, "__import__", imported)

    without(ModuleNotFoundError("No module named 'torchcodec'"))
    with pytest.raises(MissingExtra, match=r"decoding videos") as missing:
        load(written, clip=T.Clip())
    assert missing.value.exit_code == 6 and "datahub[video]" in str(missing.value.next_step)
    without(RuntimeError("Could not load libtorchcodec. Likely causes:\n1. FFmpeg\n2. torch"))
    with pytest.raises(MissingLibrary, match=r"Could not load libtorchcodec\. Likely causes") as library:
        load(written, clip=T.Clip())
    assert library.value.exit_code == 6 and "ffmpeg" in str(library.value.next_step)


# -- with TorchCodec --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("codec")
def test_clips_show_the_frames_that_were_drawn(written: Settings) -> None:
    clip = T.Clip(frames=6, stride=2)
    with load(written, clip=clip, shuffle=True, seed=4, batch_size=4) as loader:  # slots are positions: none is empty
        position = 0
        for batch in loader:
            assert batch["clip"].shape[1:] == (6, 3, 32, 48) and batch["clip"].dtype == torch.uint8
            for row, index in enumerate(batch["index"].tolist()):
                number = int(loader.split[index]["source"])
                wanted = clip.indices(length(number), Draws(4, 0, np.array([position])))
                assert shown(batch["clip"][row]) == wanted.tolist()
                position += 1
    assert position == COUNT


@pytest.mark.usefixtures("codec")
def test_batches_do_not_hang_on_who_makes_them(written: Settings) -> None:
    crop = T.Compose([T.RandomResizedCrop(16), T.RandomHorizontalFlip()])
    options = {"clip": T.Clip(frames=4, stride=2, transform=crop), "shuffle": True}

    def clips(**further: Any) -> torch.Tensor:
        with load(written, **options, **further) as loader:
            return torch.cat([batch["clip"] for batch in loader])

    once = clips(num_workers=0)
    assert once.shape == (COUNT, 4, 3, 16, 16)
    assert torch.equal(once, clips(num_workers=2))
    assert torch.equal(once, clips(num_workers=1, workers="process"))
    assert torch.equal(once, clips(device=Rehearsal()).cpu())
    with load(written, **options) as loader:
        loader.skip(1)
        assert torch.equal(once[5:10], next(iter(loader))["clip"])


@pytest.mark.usefixtures("codec")
def test_all_frames_of_a_clip_are_moved_alike(settings: Settings, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 256, (4, 6, 3), np.uint8), 16, 0).repeat(16, 1)
    path = tmp_path / "still.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    for _ in range(8):
        writer.write(still)
    writer.release()
    with Writer("still@1.0", {"clip": "video"}, settings=settings) as out:
        for number in range(6):
            out.write(source=str(number), clip=path)
    crop = T.Compose([T.RandomResizedCrop(24), T.RandomHorizontalFlip(), T.ColorJitter(0.5, 0.5)])
    with load(settings, "still", clip=T.Clip(4, transform=crop), batch_size=6) as loader:
        (clips,) = (batch["clip"] for batch in loader)
    assert all(torch.equal(frame, clip[0]) for clip in clips for frame in clip)
    assert len({clip[0].numpy().tobytes() for clip in clips}) == 6


@pytest.mark.usefixtures("codec")
def test_map_and_collate_are_given_clips(written: Settings) -> None:
    def halved(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "clip": sample["clip"][::2]}

    with load(written, clip=T.Clip(4), map=halved) as loader:
        assert next(iter(loader))["clip"].shape == (5, 2, 3, 32, 48)
    with load(written, clip=T.Clip(4), collate=lambda samples: [each["clip"].shape for each in samples]) as loader:
        assert next(iter(loader)) == [(4, 3, 32, 48)] * 5


@pytest.mark.usefixtures("codec")
def test_sizes_that_differ_come_as_a_list_until_one_is_made(settings: Settings, tmp_path: Path) -> None:
    with Writer("mixed@1.0", {"clip": "video"}, settings=settings) as writer:
        for number, size in enumerate([(48, 32), (64, 48)]):
            writer.write(source=str(number), clip=film(tmp_path / f"{number}.avi", 9, size))
    with load(settings, "mixed", clip=T.Clip(3), batch_size=2) as loader:
        found = next(iter(loader))["clip"]
    assert isinstance(found, list) and {tuple(each.shape) for each in found} == {(3, 3, 32, 48), (3, 3, 48, 64)}
    with load(settings, "mixed", clip=T.Clip(3, transform=T.Resize((16, 16))), batch_size=2) as loader:
        assert next(iter(loader))["clip"].shape == (2, 3, 3, 16, 16)


@pytest.mark.usefixtures("codec")
@pytest.mark.parametrize(("kept", "cause"), [(0.6, "ends after"), (0.01, "cannot be decoded|has no frames")])
def test_a_cut_video_is_named_or_set_aside(
    settings: Settings, tmp_path: Path, films: list[Path], kept: float, cause: str
) -> None:
    data = films[-1].read_bytes()
    with Writer("cut@1.0", {"image": "image", "clip": "video"}, settings=settings) as writer:
        for number in range(6):
            video = data[: int(len(data) * kept)] if number == 2 else data
            writer.write(image=np.zeros((32, 48, 3), np.uint8), source=str(number), clip=video)
    options = {"clip": T.Clip(4), "fields": ("clip", "source", "valid"), "batch_size": 6}
    with load(settings, "cut", **options) as loader, pytest.raises(DamagedSample, match=cause) as damage:
        next(iter(loader))
    (named,) = (each for each in open_dataset("cut", settings)["train"] if each.key == damage.value.key)
    assert named["source"] == "2"
    with load(settings, "cut", **options, on_error="quarantine") as loader:
        clips, names, valid = next(iter(loader))
        assert loader.stats()["quarantined"] == 1
    assert clips.shape == (6, 4, 3, 32, 48)
    assert [name for name, sound in zip(names, valid.tolist(), strict=True) if not sound] == ["2"]
    assert [name for name, clip in zip(names, clips, strict=True) if not clip.any()] == ["2"]


@pytest.mark.usefixtures("codec")
def test_published_videos(settings: Settings, shared_data: Path) -> None:
    folder = shared_data / "torchvision-assets" / "videos"
    paths = sorted(folder.glob("*.mp4"))[:1] + sorted(folder.glob("*.avi"))[:2]
    if not paths:
        pytest.skip(f"no videos at {folder}")
    with Writer("published@1.0", {"clip": "video"}, settings=settings) as writer:
        for path in paths:
            writer.write(source=path.name, clip=path)
    clip = T.Clip(frames=8, stride=3, start="middle")
    with load(settings, "published", clip=clip, fields=("clip", "source"), batch_size=1) as loader:
        seen = {name: found[0] for found, (name,) in loader}
    for path in paths:
        decoder = decoder_of()(str(path))
        indices = clip.indices(len(decoder), Draws.none(1)).tolist()
        assert torch.equal(seen[path.name], torch.stack([decoder[at] for at in indices]))
