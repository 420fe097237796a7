"""A fixed few of the damaged images that `tests/benchmarks/fuzz_decode.py` runs by the hundred thousand."""

from __future__ import annotations

import random

import numpy as np
import pytest

from datahub.core.errors import DamagedImage, DamagedSample
from datahub.core.settings import Settings
from datahub.loader.opening import open_dataset
from datahub.loader.streaming import StreamingLoader
from datahub.pack import authoring
from datahub.tensor.bitstream import crop
from datahub.tensor.decode import decode
from datahub.tensor.framed import decode_framed, outputs
from datahub.tensor.frames import Frames
from datahub.tensor.transforms import RandomResizedCrop
from tests.pack import jpegs
from tests.tensor import fuzzing

CASES = 900
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.mark.parametrize("kind", sorted(fuzzing.made()))
def test_damage_is_decoded_to_its_shape_or_refused(kind):
    files = {kind: fuzzing.made()[kind]}
    outcomes = []
    for number in range(CASES // len(fuzzing.made())):
        try:
            outcomes.append(fuzzing.check(7, number, files))
        except Exception as error:
            error.add_note(f"{fuzzing.case(7, number, files)[:2]}: case {number} of seed 7, only {kind}")
            raise
    assert {True, False} == set(outcomes), "some were decoded, some refused"


def test_cases_are_functions_of_their_numbers():
    files = fuzzing.made()
    assert [fuzzing.case(1, n, files) for n in range(40)] == [fuzzing.case(1, n, files) for n in range(40)]
    assert len({fuzzing.case(1, n, files) for n in range(40)}) == 40


@jpegs.needs_jpegtran
def test_tables_that_are_true_of_other_segments():
    """Lengths and markers fit, the coded segments are not the image's: pixels of the right shape, or an error."""
    (data,) = [each for each in fuzzing.made()["tiled"] if decode(each).shape == (3, 120, 200)][:1]
    outcomes = set()
    for seed in range(60):
        lying = bytes(fuzzing.consistent_tables(random.Random(seed), bytearray(data)))
        box = np.array([[seed % 90, seed % 50, 40 + seed, 30 + seed % 40]])
        size = box[:, [3, 2]]
        window = np.concatenate([np.zeros_like(size), size], axis=1)
        frames = Frames(np.array([[120, 200]]), box, size, window, np.zeros(1, bool))
        (out,) = outputs(frames, 3)
        try:
            decode_framed([lying], frames, [out])
            outcomes.add("pixels")
        except DamagedImage as damage:
            assert damage.position == 0
            outcomes.add("error")
    assert "pixels" in outcomes


@jpegs.needs_jpegtran
def test_empty_boxes_and_boxes_outside_are_refused():
    from datahub.pack.tiletable import read_table

    data = fuzzing.made()["tiled"][0]
    tiling = read_table(data)
    assert tiling is not None
    for box in (
        (0, 0, 0, 5),
        (0, 0, 5, 0),
        (-1, 0, 5, 5),
        (0, -1, 5, 5),
        (196, 0, 5, 5),
        (0, 116, 5, 5),
        (5, 5, -1, 5),
    ):
        with pytest.raises(ValueError, match="no box in"):
            crop(data, tiling, *box)


@pytest.mark.parametrize("transform", [None, RandomResizedCrop(16)])
def test_a_loader_names_the_sample_whatever_was_done_to_it(settings: Settings, transform):
    """Bytes of a shard changed at random inside one sample: `DamagedSample` with its key, or a batch of full shape."""
    files = [each for kind in ("jpeg", "png", "webp", "gif", "tiff") for each in fuzzing.made()[kind]][:24]
    with authoring.Writer("odd", {"image": "image"}, settings=settings, jobs=1) as writer:
        for number, data in enumerate(files):
            writer.write(split="train", source=f"{number}", image=data)
    split = open_dataset("odd", settings)["train"]
    rng, named = random.Random(4), 0
    for _ in range(12):
        row = rng.randrange(len(split))
        place = split.locate[row]
        shard = split.shards[int(place["shard"])]
        shard.chmod(0o644)
        sound = shard.read_bytes()
        start, size = int(place["offset"]), int(place["size"])
        part = fuzzing.flips(rng, bytearray(sound[start : start + size]))
        shard.write_bytes(sound[:start] + fuzzing.overwritten(rng, part)[:size] + sound[start + size :])
        options = {"batch_size": len(split), "settings": settings, "transform": transform, "num_workers": 2}
        try:
            with StreamingLoader("odd", "train", **options) as loader:
                (batch,) = list(loader)
            assert len(batch["image"]) == len(split)
        except DamagedSample as damage:
            assert (damage.key, damage.shard, damage.offset) == (split.key(row), shard.name, start)
            named += 1
            with StreamingLoader("odd", "train", on_error="quarantine", **options) as loader:
                (batch,) = list(loader)
            assert batch["valid"].tolist() == [each != row for each in batch["index"].tolist()]
        shard.write_bytes(sound)
    assert named
