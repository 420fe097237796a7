from __future__ import annotations

import gzip
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torchvision.io import ImageReadMode, decode_png

from datahub.pack import png

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
@given(
    st.integers(1, 4).flatmap(
        lambda c: hnp.arrays(
            np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20), st.just(c)),
            elements=st.sampled_from([0, 0, 0, 1, 127, 255]),
        )
    )
)  # fmt: skip
def test_every_decoder_gives_the_pixels_back(pixels: np.ndarray) -> None:
    for image, data in zip(pixels, png.encode(pixels), strict=True):
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.mode == MODES[image.shape[2]]
            assert np.array_equal(np.asarray(opened).reshape(image.shape), image)
        read = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
        assert np.array_equal(read.permute(1, 2, 0).numpy(), image)
        if image.shape[2] in (1, 3):
            found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
            found = found[:, :, None] if found.ndim == 2 else found[:, :, ::-1]
            assert np.array_equal(found, image)


def sizes(pixels: np.ndarray) -> tuple[int, int]:
    ours = sum(map(len, png.encode(pixels)))
    theirs = 0
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "png")
        theirs += buffer.tell()
    return ours, theirs


def test_files_are_no_larger_than_pillows(shared_data: Path) -> None:
    raw = gzip.decompress((shared_data / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    ours, theirs = sizes(np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)[:500])
    assert ours < 1.05 * theirs
    batch = shared_data / "cifar-10" / "cifar-10-batches-py" / "test_batch"
    if not batch.is_file():
        pytest.skip("no CIFAR-10 batch there")
    from datahub.pack import unpickle

    data = unpickle.load(batch.read_bytes(), str(batch))["data"]
    ours, theirs = sizes(np.ascontiguousarray(data[:300].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)))
    assert ours < 1.05 * theirs
