"""A written dataset with a field of every type, and what must be seen in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from datahub.core.settings import Settings
from datahub.pack.authoring import Writer

FIELDS = {
    **{"image": "image", "boxes": "boxes:xywh", "kind": "labels", "score": "floats", "iscrowd": "ints"},
    **{"points": "keypoints", "seen": "visibility", "masks": "masks", "mask": "mask"},
    **{"caption": "text", "meta": "json", "raw": "bytes"},
}
KINDS = ["cat", "dog", "bird"]
CLASSES = sorted(KINDS)
COUNT = 30


def thing(number: int, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """The sample of a number, as a writer takes it. Some have no object."""
    rng = np.random.default_rng(number)
    height, width = size or (int(rng.integers(20, 40)), int(rng.integers(20, 40)))
    count = number % 4
    return {
        "image": rng.integers(0, 256, (height, width, 3), np.uint8),
        "boxes": rng.uniform(0, 20, (count, 4)).astype(np.float32),
        "kind": [KINDS[(number + at) % 3] for at in range(count)],
        "score": rng.random(count),
        "iscrowd": rng.integers(0, 2, count),
        "points": rng.uniform(-2, 40, (count, 5, 2)).astype(np.float32),
        "seen": rng.integers(0, 3, (count, 5)),
        "masks": (rng.random((count, height, width)) < 0.2).astype(np.uint8),
        "mask": rng.integers(0, 20, (height, width), np.uint8),
        "caption": f"no {number}",
        "meta": {"number": number, "list": [number]},
        "raw": bytes([number]) * number,
    }


def write_things(
    settings: Settings,
    *,
    count: int = COUNT,
    size: tuple[int, int] | None = None,
    part: str = "1/1",
    ref: str = "things@1.0",
) -> Any:
    first, of = (int(each) for each in part.split("/"))
    with Writer(ref, FIELDS, settings=settings, part=part) as writer:
        for number in range(first - 1, count, of):
            writer.write(source=f"it-{number:03d}", **thing(number, size))
    return writer.path


def check(found: Any, number: int, size: tuple[int, int] | None = None) -> None:
    """What a sample or a row of a batch shows of its fields is what was written."""
    wanted = thing(number, size)
    wanted["kind"] = [CLASSES.index(each) for each in wanted["kind"]]
    for name in ("boxes", "kind", "score", "iscrowd", "points", "seen", "masks"):
        assert np.array_equal(np.asarray(found[name]), np.asarray(wanted[name]).reshape(found[name].shape)), name
        assert len(found[name]) == number % 4
    assert np.array_equal(np.asarray(found["mask"]), wanted["mask"])
    assert (found["caption"], found["meta"], found["raw"]) == (wanted["caption"], wanted["meta"], wanted["raw"])
