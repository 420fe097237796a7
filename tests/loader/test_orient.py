"""Loaders that turn images upright: `datahub.transforms.Decode`, on every way a batch is made."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

import datahub
from datahub import transforms as T
from datahub.core.errors import BadArgument, DamagedSample
from datahub.core.settings import Settings
from datahub.loader.getting import pack
from datahub.loader.streaming import StreamingLoader
from datahub.pack import authoring
from datahub.pack.recipes.smaller import Smaller
from datahub.tensor import turning
from datahub.tensor.decode import header
from datahub.tensor.device.rehearsal import Rehearsal
from datahub.tensor.draws import Draws
from datahub.tensor.transforms import Compose, Decode, Normalize, RandomHorizontalFlip, RandomResizedCrop
from tests.loader.conftest import same
from tests.tensor.images import encoded, noise
from tests.tensor.test_formats import exif

COUNT = 16
FORMS = ("JPEG", "PNG", "WEBP", "AVIF")
TRAIN = Compose([RandomResizedCrop(20), RandomHorizontalFlip()])


def picture(row: int, height: int = 40, width: int = 28) -> bytes:
    form = FORMS[row % 4]
    block = exif(row % 8 + 1)
    block = block if form == "PNG" else b"Exif\0\0" + block
    return encoded(noise(height, width, seed=row), form, exif=block)


def shown(row: int) -> torch.Tensor:
    with Image.open(io.BytesIO(picture(row))) as image:
        return torch.from_numpy(np.asarray(ImageOps.exif_transpose(image).convert("RGB")).copy()).permute(2, 0, 1)


@pytest.fixture
def phone(settings: Settings) -> Settings:
    """``phone``: 40 x 28 images of every format that says an orientation, in all eight of them."""
    with authoring.Writer("phone", {"image": "image", "label": "label"}, settings=settings, jobs=1) as writer:
        for row in range(COUNT):
            writer.write(split="train", source=f"{row}", image=picture(row), label="one")
    return settings


def loader(settings: Settings, **arguments) -> StreamingLoader:
    return StreamingLoader(
        "phone",
        "train",
        settings=settings,
        timeout=60,
        fields=("image", "source"),
        **{"batch_size": 8, "num_workers": 2, **arguments},
    )


def rows(sources: list[str]) -> list[int]:
    return [int(source) for source in sources]


def test_images_come_as_stored_unless_they_are_to_be_turned(phone):
    with loader(phone) as plain, loader(phone, transform=Decode(orient=True)) as upright:
        for (stored, names), (turned, same_names) in zip(plain, upright, strict=True):
            assert names == same_names
            for image, other, row in zip(stored, turned, rows(names), strict=True):
                assert image.shape == (3, 40, 28)
                assert torch.equal(other, shown(row))


def test_crops_are_of_what_is_shown(phone):
    with loader(phone, shuffle=True, seed=5, transform=Decode(orient=True, then=TRAIN)) as made:
        for step, (images, names) in enumerate(made):
            draws = Draws(5, 0, np.arange(8) + 8 * step)
            assert torch.equal(images, TRAIN([shown(row) for row in rows(names)], draws=draws))


def test_a_preset_and_a_callable_follow(phone):
    with loader(phone, transform=Decode(orient=True, then="imagenet_eval"), dtype=torch.float16) as made:
        assert next(iter(made))[0].dtype == torch.float16
    with loader(phone, transform=Decode(orient=True, then=lambda image: image.float().mean())) as made:
        images, names = next(iter(made))
        assert torch.allclose(torch.as_tensor(images), torch.stack([shown(row).float().mean() for row in rows(names)]))


def test_what_it_refuses(phone):
    for arguments in ({"orient": 6}, {"then": Decode()}):
        with pytest.raises(BadArgument):
            Decode(**arguments)
    with pytest.raises(BadArgument, match="transform"):
        loader(phone, transform=Decode(then="nothing_known"))
    with pytest.raises(BadArgument, match="give Decode as transform="):
        Compose([Decode(orient=True), Normalize([0.5], [0.5])])
    assert datahub.transforms.Decode is Decode
    with loader(phone, transform=Decode(orient=True)) as made:
        assert "EXIF" in made.explain()


def test_what_is_packed_smaller_is_turned_as_before(phone):
    stored = datahub.open("phone", phone)["train"]
    pack("phone", "phone/max20", settings=phone, jobs=1)
    smaller = datahub.open("phone/max20", phone)["train"]
    for row in range(COUNT):
        before, after = (header(split[row].encoded, upright=True) for split in (stored, smaller))
        assert (after.kind, after.turn) == ("jpeg", before.turn) and min(after.width, after.height) == 20


def test_texts_of_a_png_turn_nothing_when_it_is_packed_smaller():
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    data = encoded(noise(40, 28), "PNG", exif=exif(1), pnginfo=text)
    assert header(data, upright=True).turn == 1
    (made,) = Smaller(20).transform([data])
    assert header(made.data, upright=True).turn == 1


# -- what stands beside them ------------------------------------------------------------------------------------------

FORMS_OF_BOXES = ("xyxy", "xywh", "cxcywh")


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Pillow's answer for uint8 ``(H, W)`` or ``(H, W, 3)``."""
    with Image.fromarray(pixels) as image:
        image.getexif()[0x0112] = turn
        return np.asarray(ImageOps.exif_transpose(image)).copy()


def drawn(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """White pixels where a box of corners is."""
    found = np.zeros(size, np.uint8)
    found[box[1] : box[3], box[0] : box[2]] = 255
    return found


def corners(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """Where the white pixels are."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def formed(box: tuple[int, int, int, int], form: str) -> list[float]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    middle = [left + width / 2, top + height / 2, width, height]
    return {"xyxy": [*map(float, box)], "xywh": [left, top, width, height], "cxcywh": middle}[form]


@st.composite
def boxed(draw) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (height, width), (left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))


@given(boxed(), st.integers(1, 8), st.sampled_from(FORMS_OF_BOXES))
def test_boxes_points_and_masks_are_where_their_pixels_are(case, turn, form):
    size, box = case
    shown = upright(drawn(box, size), turn)
    found = turning.boxes(np.array([formed(box, form)], np.float32), form, shown.shape, turn)
    assert found.tolist() == [formed(corners(shown), form)]
    left, top = box[:2]
    lit = upright(drawn((left, top, left + 1, top + 1), size), turn)
    at = turning.points(np.array([[[left, top]]], np.float32), shown.shape, turn)
    assert at.tolist() == [[list(corners(lit)[:2])]]
    mask = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    assert np.array_equal(turning.masks(mask, turn), upright(mask, turn))
    assert np.array_equal(turning.masks(np.stack([mask, mask + 1]), turn)[1], upright(mask + 1, turn))


FIELDS = {
    **{"image": "image", "boxes": "boxes:xywh", "kind": "labels", "points": "keypoints"},
    **{"masks": "masks", "mask": "mask", "raw": "bytes"},
}
SHOWN = ("image", "boxes", "kind", "points", "masks", "mask", "source", "valid")


@pytest.fixture(scope="module")
def annotated(tmp_path_factory) -> Settings:
    """``stored`` is turned by EXIF, in all ways; ``shown`` is the same put upright, by Pillow, before it was packed."""
    settings = Settings(home=tmp_path_factory.mktemp("annotated") / "home")
    for ref in ("stored", "shown"):
        with authoring.Writer(ref, FIELDS, settings=settings, jobs=1) as writer:
            for row in range(COUNT):
                writer.write(split="train", source=f"{row}", **sample(row, turned=ref == "shown"))
    return settings


def sample(row: int, *, turned: bool) -> dict:
    turn, size = row % 8 + 1, (40 - row, 28)
    rng = np.random.default_rng(row)
    show = (lambda pixels: upright(pixels, turn)) if turned else (lambda pixels: pixels)
    boxes, points = [], []
    for _ in range(row % 4):
        left, top = int(rng.integers(0, 20)), int(rng.integers(0, 15))
        boxes.append(corners(show(drawn((left, top, left + 8, top + 9), size))))
        points.append([list(corners(show(drawn((left + at, top, left + at + 1, top + 1), size)))[:2]) for at in (0, 5)])
    pixels = noise(*size, seed=row)
    image = encoded(show(pixels)) if turned else encoded(pixels, "PNG", exif=exif(turn))
    masks = [show((rng.random(size) < 0.3).astype(np.uint8) * 255) // 255 for _ in boxes]
    return {
        "image": image,
        "boxes": np.array([formed(box, "xywh") for box in boxes], np.float32).reshape(-1, 4),
        "kind": ["cat" if left % 2 else "dog" for left in range(len(boxes))],
        "points": np.array(points, np.float32).reshape(-1, 2, 2),
        "masks": np.array(masks, np.uint8).reshape(-1, *show(np.zeros(size, np.uint8)).shape),
        "mask": show(rng.integers(0, 20, size, np.uint8)),
        "raw": bytes([row]),
    }


def annotations(settings: Settings, ref: str, transform, **arguments) -> list:
    options = {"batch_size": 6, "num_workers": 2, "timeout": 60, "fields": SHOWN, **arguments}
    transform = Decode(orient=True, then=transform) if ref == "stored" else transform
    with StreamingLoader(ref, "train", settings=settings, transform=transform, **options) as made:
        return list(made)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"transform": Compose([RandomResizedCrop(20), RandomHorizontalFlip(), T.SanitizeBoundingBoxes()])},
        {"transform": T.Resize((24, 24)), "device": Rehearsal(), "num_workers": 3},
        {"transform": T.RandomRotation(30), "num_workers": 0},
        {"fields": ("boxes", "points", "masks", "source")},
        {"fields": ("kind", "raw", "source")},
        {"map": lambda sample: {**sample, "area": torch.tensor(sample["masks"].shape)}},
    ],
    ids=["whole", "cropped", "on a device", "rotated", "no image", "nothing with a place", "mapped"],
)
@pytest.mark.parametrize("residency", ["stream", "encoded"])
def test_what_stands_beside_images_is_turned_with_them(annotated, arguments, residency):
    options = {"transform": None, **arguments}
    transform = options.pop("transform")
    wanted = annotations(annotated, "shown", transform, **options)
    found = annotations(annotated, "stored", transform, residency=residency, **options)
    for ours, theirs in zip(found, wanted, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert same(mine, other)
            if isinstance(mine, list):
                assert all(type(a) is type(b) for a, b in zip(mine, other, strict=True))
                sizes = [getattr(each, "canvas_size", None) for each in mine]
                assert sizes == [getattr(each, "canvas_size", None) for each in other]


def test_a_damaged_image_among_turned_ones_has_nothing_beside_it(annotated):
    split = datahub.open("stored", annotated)["train"]
    place = split.locate[5]
    shard = split.shards[int(place["shard"])]
    before = shard.read_bytes()
    for at in (0, int(place["size"]) // 2):  # its header; its pixels, once it is known how it is turned
        try:
            with shard.open("r+b") as file:
                file.seek(int(place["offset"]) + at)
                file.write(bytes(12))
            for fields in (SHOWN, ("boxes", "masks", "valid", "source")):
                batches = annotations(annotated, "stored", None, fields=fields, on_error="quarantine")
                names = [name for batch in batches for name in batch[fields.index("source")]]
                row = names.index(split[5]["source"])
                valid = torch.cat([batch[fields.index("valid")] for batch in batches])
                boxes = [each for batch in batches for each in batch[fields.index("boxes")]]
                if at == 0 or "image" in fields:
                    assert valid.tolist() == [other != row for other in range(COUNT)] and len(boxes[row]) == 0
                else:
                    assert valid.all()  # pixels that are not shown are not read
                assert sum(map(len, boxes)) > 0
            with pytest.raises(DamagedSample, match=split.key(5)):
                annotations(annotated, "stored", None)
        finally:
            shard.write_bytes(before)
