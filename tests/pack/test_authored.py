"""What a `Writer` refuses, at the sample that is wrong and with what it leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from datahub.core.errors import AlreadyPacked, BadArgument
from datahub.core.settings import Settings
from datahub.pack.authoring import Writer
from datahub.store.dataset import open_dataset

FIELDS = {"image": "image", "label": "label", "n": "int", "f": "float", "t": "text", "j": "json"}
SOUND: dict[str, Any] = {"image": np.zeros((4, 5, 3), np.uint8), "label": 0, "n": 1, "f": 1.5, "t": "x", "j": {}}
WRONG: dict[str, list[Any]] = {
    "label": [1.5, True, np.float32(1), [1], -1, 2**70, "", "\ud800"],
    "n": [2**70, True, "1"],
    "f": [float("nan"), float("inf"), 2**2000],
    "t": ["\ud800", 5],
    "j": [{"a": object()}, {1: 2, "a": 3}],
    "source": [5, "\ud800"],
    "split": [5, "Train", "x" * 90],
    "image": [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        Image.new("CMYK", (4, 4)),
        Image.new("F", (4, 4)),
        Image.new("RGB", (0, 0)),
    ],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_refused_as_it_is_written(settings: Settings, name: str) -> None:
    writer = Writer("x@1", FIELDS, settings=settings)
    for value in WRONG[name]:
        with pytest.raises(BadArgument):
            writer.write(**{**SOUND, name: value})
    writer.write(**{**SOUND, "j": {"box": (1, np.int64(2), float("nan"))}})
    writer.close()
    sample = open_dataset("x@1", settings)["train"][0]
    assert (sample["j"], sample["n"], sample["f"]) == ({"box": [1, 2, None]}, 1, 1.5)


@pytest.mark.parametrize(
    "how",
    [
        {"fields": ["image"]},
        {"fields": {"image": "image", "image_size": "int"}},
        {"fields": {"image": "image", "valid": "int"}},
        {"classes": ["a", "a"]},
        {"classes": [1, 2]},
    ],
)
def test_fields_and_classes_that_are_none(settings: Settings, how: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        Writer("x@1", settings=settings, **how)


def test_labels_are_of_the_classes(settings: Settings) -> None:
    with Writer("x@1", settings=settings, classes=["cat", "dog"]) as writer:
        for label in ("bird", 2):
            with pytest.raises(BadArgument):
                writer.write(image=SOUND["image"], label=label)
        writer.write(image=SOUND["image"], label="dog")
    assert open_dataset("x@1", settings)["train"][0]["label"] == 1


def test_nothing_is_left_of_what_is_not_published(settings: Settings) -> None:
    with Writer("x@1", settings=settings) as writer:
        writer.write(image=SOUND["image"], label=0)
    with pytest.raises(AlreadyPacked), Writer("x@1", settings=settings) as writer:
        writer.write(image=SOUND["image"], label=1)
    with pytest.raises(ZeroDivisionError), Writer("x@1", settings=settings) as writer:
        raise ZeroDivisionError
    assert not list((settings.datasets / ".building").glob("*/part-*"))
    assert not [each for each in (settings.datasets / ".building").iterdir() if not any(each.iterdir())]
