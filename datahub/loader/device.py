"""Which device a loader's batches are made on: the argument and the environment, to a `Backend`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from datahub.core.errors import BadArgument
from datahub.tensor.device.lanes import Backend

if TYPE_CHECKING:
    from datahub.tensor.device.decoders import Kind

HERE = 'use device="cpu" and move the batch yourself'


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """A CUDA device with choices, as ``device=``. ``index``: None for this rank's.

    ``decoder``: "torchvision" (nvJPEG), "nvimgcodec", "host" (threads decode, the device does the rest), or "auto".
    ``hardware_share``: the part of a batch, 0 to 1, that nvImageCodec gives to the hardware engine.
    """

    index: int | None = None
    decoder: Kind = "auto"
    hardware_share: float | None = None


def backend_of(device: Any, environ: Mapping[str, str]) -> Backend | None:
    """The backend that ``device=`` stands for; None for the CPU. Raises `BadArgument`, also where no such device is."""
    if isinstance(device, Backend):
        return device
    options = device if isinstance(device, CudaOptions) else None
    if options is None:
        wanted = _parsed(device)
        if wanted.type == "cpu":
            return None
        if wanted.type != "cuda":
            reason = "batches are made on cpu and on cuda devices"
            raise BadArgument("device", str(device), reason, HERE)
        options = CudaOptions(wanted.index)
    index = _index(device, options.index, environ)
    from datahub.tensor.device.cuda import Cuda  # with torchvision's decoders: 170 MB that the CPU has no use for
    from datahub.tensor.device.decoders import decoder_of

    return Cuda(index, decoder_of(options.decoder, options.hardware_share, index))


def _parsed(device: Any) -> torch.device:
    if isinstance(device, torch.device):
        return device
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise BadArgument("device", device, "is not a device", "write cpu, cuda or cuda:0") from error


def _index(device: Any, wanted: int | None, environ: Mapping[str, str]) -> int:
    """The device's number: the one asked for, this rank's on its machine, else the current one."""
    given = device if isinstance(device, CudaOptions) else str(device)
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None
        reason = "no CUDA device is here" if built else "this PyTorch is built without CUDA"
        hint = 'use device="cpu"; `datahub doctor` says what PyTorch sees of this machine'
        raise BadArgument("device", given, reason, hint)
    count = torch.cuda.device_count()
    local = environ.get("LOCAL_RANK", "")
    if wanted is None:
        # A process that is shown one device alone, as launchers do, has that one, whatever its rank.
        wanted = torch.cuda.current_device() if not local.isdecimal() else int(local) if count > 1 else 0
    if not 0 <= wanted < count:
        reason = f"device {wanted} is not here: there are {count}"
        raise BadArgument("device", given, reason, "start as many ranks on a machine as it has devices")
    return wanted
