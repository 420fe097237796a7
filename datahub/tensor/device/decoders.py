"""JPEG decoders on a CUDA device: torchvision's nvJPEG, or nvImageCodec, which can be told how to share the work.

torchvision gives every image to the hardware engine that it can decode, others to CUDA: which image goes where hangs on
the image alone, so that a batch made again is the same. nvImageCodec takes a share of the batch, by its place, too.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import simplejpeg
import torch
import torchvision.io  # registers the operators

from datahub.core.errors import BadArgument
from datahub.tensor.device.lanes import Undecodable
from datahub.tensor.device.memory import is_out_of_memory, memory_of

Kind = Literal["auto", "torchvision", "nvimgcodec", "host"]
KINDS = ("auto", "torchvision", "nvimgcodec", "host")


class Decoder(Protocol):
    name: str

    def decode(
        self, encoded: Sequence[torch.Tensor], channels: int, device: torch.device, stream: torch.cuda.Stream
    ) -> list[torch.Tensor]:
        """As `Lane.decode`; ``stream`` is the current one, and stands drained."""


class TorchvisionDecoder:
    """nvJPEG in torchvision's build. A call returns when the pixels are there, and calls wait for each other."""

    name = "nvJPEG, through torchvision"

    def __init__(self) -> None:
        # Not torchvision.io.decode_jpeg, which warns of its retirement at every call.
        self._call = torch.ops.image.decode_jpegs_cuda
        self._modes = {1: torchvision.io.ImageReadMode.GRAY.value, 3: torchvision.io.ImageReadMode.RGB.value}

    def decode(
        self,
        encoded: Sequence[torch.Tensor],
        channels: int,
        device: torch.device,
        stream: torch.cuda.Stream,  # noqa: ARG002 - it has one of its own, which it waits for
    ) -> list[torch.Tensor]:
        try:
            found: list[torch.Tensor] = self._call(list(encoded), self._modes[channels], device)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise Undecodable(str(error).partition("\n")[0]) from error
        return found


class NvImageCodecDecoder:
    """``share`` of each batch, 0 to 1, for the hardware engine; the rest is decoded by CUDA.

    Pixels are planar from 0.9 on, which the fused kernel reads by words, and interleaved before.
    """

    def __init__(self, index: int, share: float) -> None:
        from nvidia import nvimgcodec

        self._codec: Any = nvimgcodec
        kind, backend = nvimgcodec.BackendKind, nvimgcodec.Backend
        shared = [backend(kind.HW_GPU_ONLY, load_hint=share)] if share else []
        backends = [*shared, backend(kind.GPU_ONLY), backend(kind.HYBRID_CPU_GPU)]
        # Chroma is interpolated as libjpeg does it; without the option it is repeated.
        self._decoder: Any = nvimgcodec.Decoder(device_id=index, backends=backends, options=":fancy_upsampling=1")
        self._one_at_a_time = threading.Lock()
        spec, forms = nvimgcodec.ColorSpec, getattr(nvimgcodec, "SampleFormat", None)
        self._planar = forms is not None
        form = {} if forms is None else {"sample_format": forms.P_AUTO_COMPONENTS}
        colour = spec.SRGB if hasattr(spec, "SRGB") else spec.RGB  # its name before 0.9
        self._params = {
            channels: nvimgcodec.DecodeParams(color_spec=each, apply_exif_orientation=False, **form)
            for channels, each in ((1, spec.GRAY), (3, colour))
        }
        self.name = f"nvImageCodec, {share:.0%} by the hardware engine"

    def decode(
        self, encoded: Sequence[torch.Tensor], channels: int, device: torch.device, stream: torch.cuda.Stream
    ) -> list[torch.Tensor]:
        streams = [self._codec.CodeStream(each.numpy()) for each in encoded]
        with self._one_at_a_time:
            images = self._decoder.decode(streams, params=self._params[channels], cuda_stream=stream.cuda_stream)
        if any(image is None for image in images):
            raise Undecodable(f"{sum(image is None for image in images)} images were refused")
        found = [torch.as_tensor(image, device=device) for image in images]
        return found if self._planar else [image.permute(2, 0, 1) for image in found]


def decoder_of(kind: str, share: float | None, index: int) -> Decoder | None:
    """The decoder that is asked for; None for the host's. ``auto``: torchvision's, or nvImageCodec where that is not.

    Raises `BadArgument` for one that is not there.
    """
    if kind not in KINDS:
        raise BadArgument("decoder", kind, f"use one of {', '.join(KINDS)}")
    is_part = isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1
    if share is not None and not is_part:
        raise BadArgument("hardware_share", share, "must be a part from 0 to 1")
    if share is not None and kind not in ("auto", "nvimgcodec"):
        raise BadArgument("hardware_share", share, f"{kind} takes none", 'use decoder="nvimgcodec"')
    if kind == "host":
        return None
    if kind != "nvimgcodec" and share is None and _torchvision_decodes(index):
        return TorchvisionDecoder()
    if kind == "torchvision":
        reason = "this torchvision decodes no JPEG on CUDA"
        raise BadArgument("decoder", kind, reason, 'use a build with nvJPEG, or decoder="nvimgcodec"')
    if has_nvimgcodec():
        return NvImageCodecDecoder(index, 1.0 if share is None else share)
    if kind == "auto" and share is None:
        return None
    raise BadArgument("decoder", kind, "nvImageCodec is not installed", "run `pip install 'datahub[nvimgcodec]'`")


@functools.cache
def _torchvision_decodes(index: int) -> bool:
    """Whether it does: builds without nvJPEG have the operator all the same."""
    if not hasattr(torch.ops.image, "decode_jpegs_cuda"):
        return False
    device = torch.device("cuda", index)
    probe = torch.frombuffer(bytearray(simplejpeg.encode_jpeg(np.zeros((16, 16, 3), np.uint8))), dtype=torch.uint8)
    try:
        with memory_of(device):
            TorchvisionDecoder().decode([probe], 3, device, torch.cuda.current_stream(device))
    except Undecodable:
        return False
    return True


def has_nvimgcodec() -> bool:
    try:
        return importlib.util.find_spec("nvidia.nvimgcodec") is not None
    except ModuleNotFoundError:  # no package `nvidia` at all
        return False
