"""What else decodes and augments on a GPU: the same work as ours, each by its own idiom. Used by `bench_gpu`.

Each takes encoded JPEGs in memory and yields bf16 channels-last batches ``(B, 3, 224, 224)`` on the device: random
resized crop, flip, normalised. A `Missing` says why a peer cannot run here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Batches = Callable[[list[bytes], int, torch.device], Iterator[torch.Tensor]]


class Missing(Exception):
    """A peer is not installed, or not for this device."""


def torchvision_lists(images: list[bytes], batch: int, device: torch.device) -> Iterator[torch.Tensor]:
    """``decode_jpeg`` on lists, then v2 transforms of each image on the device; bytes are read ahead by a thread."""
    from torchvision.io import ImageReadMode, decode_jpeg

    def read(rows: list[int]) -> list[torch.Tensor]:
        return [torch.frombuffer(bytearray(images[row]), dtype=torch.uint8) for row in rows]

    def decode(encoded: list[torch.Tensor]) -> list[torch.Tensor]:
        return decode_jpeg(encoded, ImageReadMode.RGB, device=device)

    yield from _decoded(len(images), batch, read, decode)


def nvimagecodec(images: list[bytes], batch: int, device: torch.device) -> Iterator[torch.Tensor]:
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        raise Missing(str(error)) from error
    if device.type != "cuda":
        raise Missing("decodes on CUDA devices")
    decoder = nvimgcodec.Decoder(device_id=device.index or 0)
    spec = nvimgcodec.ColorSpec
    colour = spec.SRGB if hasattr(spec, "SRGB") else spec.RGB
    params = nvimgcodec.DecodeParams(color_spec=colour, apply_exif_orientation=False)

    def decode(encoded: list[bytes]) -> list[torch.Tensor]:
        found = decoder.decode([nvimgcodec.CodeStream(each) for each in encoded], params=params)
        return [torch.as_tensor(image, device=device).permute(2, 0, 1) for image in found]

    yield from _decoded(len(images), batch, lambda rows: [images[row] for row in rows], decode)


def spdl(images: list[bytes], batch: int, device: torch.device) -> Iterator[torch.Tensor]:
    """SPDL's own batch loader has no crops: nvJPEG, scaled to 224 x 224, and the rest in torch. Less work than ours."""
    try:
        import spdl.io
    except ImportError as error:
        raise Missing(str(error)) from error
    if device.type != "cuda":
        raise Missing("decodes on CUDA devices")
    config = spdl.io.cuda_config(device_index=device.index or 0)

    def load(rows: list[int]) -> torch.Tensor:
        buffer = spdl.io.load_image_batch_nvjpeg(
            [images[row] for row in rows], device_config=config, width=SIZE, height=SIZE
        )
        found = spdl.io.to_torch(buffer)
        return found if found.shape[1] == 3 else found.permute(0, 3, 1, 2)

    for rows in _order(len(images), batch):
        yield _finished(load(rows))


def dali(images: list[bytes], batch: int, device: torch.device) -> Iterator[torch.Tensor]:
    try:
        from nvidia.dali import fn, pipeline_def, types
        from nvidia.dali.plugin.pytorch import feed_ndarray
    except ImportError as error:
        raise Missing(str(error)) from error
    if device.type != "cuda":
        raise Missing("its mixed decoder needs a CUDA device")
    arrays = [np.frombuffer(each, np.uint8) for each in images]
    orders = _order(len(images), batch)

    @pipeline_def(batch_size=batch, num_threads=8, device_id=device.index or 0, prefetch_queue_depth=2)
    def pipeline() -> Any:
        encoded = fn.external_source(lambda: [arrays[row] for row in next(orders)], dtype=types.UINT8, ndim=1)
        decoded = fn.decoders.image_random_crop(
            encoded,
            device="mixed",
            output_type=types.RGB,
            random_area=[0.08, 1.0],
            random_aspect_ratio=[3 / 4, 4 / 3],
            hw_decoder_load=0.75,
        )
        scaled = fn.resize(decoded, device="gpu", size=[SIZE, SIZE], antialias=True)
        return fn.crop_mirror_normalize(
            scaled, dtype=types.FLOAT16, output_layout="HWC", mean=[255 * each for each in MEAN],
            std=[255 * each for each in STD], mirror=fn.random.coin_flip(),
        )  # fmt: skip

    made = pipeline()
    made.build()
    while True:
        try:
            (found,) = made.run()
        except StopIteration:
            return
        out = torch.empty((batch, SIZE, SIZE, 3), dtype=torch.float16, device=device)
        feed_ndarray(found.as_tensor(), out, cuda_stream=torch.cuda.current_stream(device))
        yield out.permute(0, 3, 1, 2).to(torch.bfloat16)


PEERS: dict[str, Batches] = {
    "torchvision": torchvision_lists,
    "nvimagecodec": nvimagecodec,
    "spdl": spdl,
    "dali": dali,
}


def _decoded(
    count: int, batch: int, read: Callable[[list[int]], Any], decode: Callable[[Any], list[torch.Tensor]]
) -> Iterator[torch.Tensor]:
    """Whole images decoded by ``decode``, then cropped, scaled and flipped by v2's functions, one by one."""
    from torchvision.transforms import v2

    crop = v2.Compose([v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip()])
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for rows in _order(count, batch):
            ready, ahead = ahead, pool.submit(read, rows)
            if ready is not None:
                yield _finished(torch.stack([crop(image) for image in decode(ready.result())]))
        if ahead is not None:
            yield _finished(torch.stack([crop(image) for image in decode(ahead.result())]))


def _finished(images: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(MEAN, device=images.device)[:, None, None]
    std = torch.tensor(STD, device=images.device)[:, None, None]
    made = images.to(torch.float32).mul_(1 / 255).sub_(mean).div_(std).to(torch.bfloat16)
    return made.contiguous(memory_format=torch.channels_last)


def _order(count: int, batch: int) -> Iterator[list[int]]:
    order = random.Random(0).sample(range(count), count)
    for first in range(0, count - batch + 1, batch):
        yield order[first : first + batch]
