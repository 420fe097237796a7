"""What to train, and how, said once and checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from datahub.core.errors import BadArgument
from datahub.tensor.checks import number
from datahub.train import checkpoint

PRECISIONS = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train, and how. ``batch`` is of the whole job, not of a rank."""

    ref: str
    model: str = "resnet18"
    weights: str | None = None
    folder: Path | None = None
    """Folder of the checkpoint and the logs; None: nothing is kept."""
    split: str = "train"
    held_out: str | None = None
    """The split to evaluate on; None: val or test, whichever there is."""
    epochs: int = 10
    batch: int = 256
    rate: float | None = None
    """Highest learning rate; None: 0.1 for a batch of 256, in proportion."""
    decay: float = 1e-4
    smoothing: float = 0.1
    seed: int = 0
    augment: str | None = None
    """Preset of the training images; None: by their size."""
    mixup: float | None = None
    cutmix: float | None = None
    """The alphas of mixing training samples; both: one of the two, drawn for each sample."""
    amp: str | None = None
    """``off``, ``bf16`` or ``fp16``; None: bf16 on a GPU, off elsewhere."""
    device: str | None = None
    workers: int | None = None
    save_every: int = 500
    """Steps between checkpoints within an epoch."""
    steps: int | None = None
    """Stop after so many steps of this call, with a checkpoint."""
    resume: bool = False
    eval_only: bool = False
    tensorboard: bool = False
    download: bool = False


def check(job: Job) -> None:
    """Raise `BadArgument` for what cannot be, before anything is opened."""
    for name in ("epochs", "batch", "save_every", "steps"):
        value = getattr(job, name)
        if value is not None and value < 1:
            raise BadArgument(name, value, "must be at least 1")
    if job.rate is not None and number("rate", job.rate) <= 0:
        raise BadArgument("rate", job.rate, "must be positive")
    if job.amp is not None and job.amp not in PRECISIONS:
        raise BadArgument("amp", job.amp, "is not a precision", f"known: {', '.join(PRECISIONS)}")
    if job.resume and job.folder is None:
        raise BadArgument("resume", True, "no run is named", "say where it is with --dir DIR")
    standing = job.folder is not None and (job.folder / checkpoint.FILENAME).exists()
    if standing and not job.resume and not job.eval_only:
        raise BadArgument("dir", str(job.folder), "holds a checkpoint already", "say --resume, or use another")
    if job.resume and not standing:
        raise BadArgument("dir", str(job.folder), "holds no checkpoint to go on from", "start it without --resume")
    if job.eval_only and job.weights is None and not standing:
        raise BadArgument(
            "eval_only", True, "there is no model to evaluate", "give --weights, or --dir of a trained one"
        )
