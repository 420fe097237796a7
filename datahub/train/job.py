"""The reference training job: plain PyTorch around a `StreamingLoader`, to be read, run and copied.

Everything that a step does is a function of the checkpoint and the step's number: the batch and its augmentation by
the loader's formula, the learning rate by `rate_at`, torch's own generator by a seed a step. A run that was killed and
taken up again, on as many ranks or others, goes on where it was.
"""

from __future__ import annotations

import math
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from datahub.core.errors import BadArgument
from datahub.core.events import Listener, Note, Progress, ignore
from datahub.core.settings import Settings
from datahub.loader.opening import open_or_fetch
from datahub.loader.streaming import StreamingLoader
from datahub.order.permutation import derive
from datahub.train import checkpoint, networks
from datahub.train.config import PRECISIONS, Job, check
from datahub.train.data import held_out, training
from datahub.train.fitting import check_size, learning
from datahub.train.logs import CsvLog, Log, TensorBoardLog
from datahub.train.meters import Meter, Row
from datahub.train.world import World, joined

WARM = 0.05
"""Share of the steps in which the learning rate rises from nothing."""


@dataclass(slots=True)
class Outcome:
    """What was seen; ``finished`` is False where ``steps`` ended the run early."""

    rows: list[Row] = field(default_factory=list)
    finished: bool = True
    leads: bool = True
    """Whether this is the rank that speaks for the others."""


def run(job: Job, settings: Settings, listener: Listener = ignore) -> Outcome:
    """Train (or with ``eval_only`` evaluate) and return the rows of the log, the same on every rank.

    Raises `BadArgument`, `NotInStore`, `DigestMismatch`, and what loaders raise.
    """
    check(job)
    with joined(job.device) as world, ExitStack() as stack:
        listener = listener if world.leads else ignore
        keeps = job.folder is not None and world.leads and not job.eval_only
        if job.folder is not None and keeps:
            stack.enter_context(checkpoint.alone(job.folder))
        dataset = open_or_fetch(job.ref, settings, job.download)
        classes = len(dataset.classes)
        if classes < 2:
            raise BadArgument("ref", job.ref, "its samples have no classes", "train on a set with labels")
        torch.manual_seed(derive(job.seed, "model") >> 1)
        network = networks.build(job.model, classes, job.weights, settings, listener)
        module = network.module.to(world.device).to(memory_format=torch.channels_last)
        trained = None if job.eval_only else stack.enter_context(training(job, dataset, settings))
        evaluated = stack.enter_context(held_out(job, dataset, settings, network))
        trainer = _Trainer(job, world, module, evaluated, listener)
        if job.resume and trained is not None:
            trainer.restore(trained)
        if job.folder is not None and keeps:
            trainer.logs = [stack.enter_context(closing(each)) for each in _logs(job, job.folder, trainer.rows)]
        outcome = trainer.evaluate_only() if trained is None else trainer.train(trained)
        outcome.leads = world.leads
        return outcome


def rate_at(progress: float, highest: float) -> float:
    """The learning rate at ``progress``, 0 to 1: a short rise, then half a cosine down to nothing."""
    if progress < WARM:
        return highest * progress / WARM
    return highest * (0.5 + 0.5 * math.cos(math.pi * (progress - WARM) / (1 - WARM)))


def _logs(job: Job, folder: Path, before: list[Row]) -> list[Log]:
    found: list[Log] = [CsvLog(folder / "metrics.csv", before)]
    return [*found, TensorBoardLog(folder / "tensorboard", before)] if job.tensorboard else found


class _Trainer:
    def __init__(
        self,
        job: Job,
        world: World,
        module: nn.Module,
        evaluated: StreamingLoader,
        listener: Listener,
    ) -> None:
        self.job, self.world, self.module, self.listener = job, world, module, listener
        self._evaluated = evaluated
        self.logs: list[Log] = []
        self.rows: list[Row] = []
        """Of all epochs that are over, of this call or before."""
        self._seen: list[float] = []
        """What a run that is taken up again had seen of its epoch."""
        self._step, self._best = 0, 0.0
        self._fits = False
        cuda = world.device.type == "cuda"
        self._precision = PRECISIONS[job.amp or ("bf16" if cuda else "off")]
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=self._precision is torch.float16)
        self._highest = job.rate if job.rate is not None else 0.1 * job.batch / 256
        self._optimizer = torch.optim.SGD(_groups(module, job.decay), lr=self._highest, momentum=0.9, nesterov=True)
        self._facts = {
            "model": job.model, "dataset": evaluated.dataset.fingerprint, "split": job.split, "epochs": job.epochs,
            "batch": job.batch, "rate": self._highest, "decay": job.decay, "smoothing": job.smoothing, "seed": job.seed,
            "augment": job.augment or "", "mixup": job.mixup, "cutmix": job.cutmix,
        }  # fmt: skip

    # -- the two things it does -----------------------------------------------------------------------------------

    def evaluate_only(self) -> Outcome:
        if self.job.folder is not None and self.job.weights is None:
            networks.restore(self.module, self.job.folder / checkpoint.FILENAME, self.job.model)
        return Outcome([self._evaluate(0)])

    def train(self, loader: StreamingLoader) -> Outcome:
        size = self.world.size
        model = DistributedDataParallel(self.module) if size > 1 else self.module
        outcome, left = Outcome(), self.job.steps
        total = self.job.epochs * len(loader)
        while loader.epoch < self.job.epochs and (left is None or left > 0):
            epoch = loader.epoch
            row, done = self._epoch(model, loader, total, left)
            self._write(row, outcome)
            left = None if left is None else left - done
            if loader.epoch == epoch:  # steps ran out within it
                break
            held = self._evaluate(epoch)
            self._write(held, outcome)
            self.rows += [row, held]
            best = held.top1 > self._best
            self._best = max(self._best, held.top1)
            self._save(loader.state_dict(), best=best)
        outcome.finished = loader.epoch >= self.job.epochs
        return outcome

    # -- one epoch ------------------------------------------------------------------------------------------------

    def _epoch(self, model: nn.Module, loader: StreamingLoader, total: int, left: int | None) -> tuple[Row, int]:
        """Train to the end of the epoch, or for ``left`` steps: (the row of all that was seen of it, steps taken)."""
        model.train()
        meter, self._seen = Meter(self.world.device, self._seen), []
        epoch, done, rate = loader.epoch, 0, rate_at(max(self._step - 1, 0) / total, self._highest)
        for batch in meter.waiting(loader):
            rate = rate_at(self._step / total, self._highest)
            self._learn(model, batch, rate, meter)
            self._step += 1
            done += 1
            self.listener(Progress("train", f"epoch {epoch + 1}", loader.step, len(loader), "steps"))
            if done == left or self._step % self.job.save_every == 0:
                self._save(loader.state_of(batch), seen=meter.totals(self.world))
            if done == left:
                break
        else:
            return meter.row(self.world, phase="train", epoch=epoch, step=self._step, rate=rate), done
        row = meter.row(self.world, phase="train", epoch=epoch, step=self._step, rate=rate)
        loader.load_state_dict(loader.state_of(batch))  # a loop left early would else begin the next epoch
        return row, done

    def _learn(self, model: nn.Module, batch: dict[str, Any], rate: float, meter: Meter) -> None:
        torch.manual_seed(derive(self.job.seed, "step", self._step, self.world.topology.rank) >> 1)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        images, labels = self._moved(batch)
        with learning(self.world.device, self.job.batch):
            with torch.autocast(self.world.device.type, self._precision, enabled=self._precision is not None):
                scores = model(images)
                losses = F.cross_entropy(scores.float(), labels, reduction="none", label_smoothing=self.job.smoothing)
            valid = batch["valid"].to(self.world.device, non_blocking=True)
            # DDP takes the mean over ranks; what is wanted is the mean over the valid rows of all of them.
            loss = (losses * valid).sum() * self.world.size / max(1, batch["n_global"])
            self._optimizer.zero_grad(set_to_none=True)
            self._scaler.scale(loss).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()
        classes = labels if labels.ndim == 1 else labels.argmax(1)  # of mixed samples, the one that is more of it
        meter.add((losses * valid).sum().detach(), scores.detach()[valid], classes[valid])

    @torch.no_grad()
    def _evaluate(self, epoch: int) -> Row:
        self.module.eval()
        self.world.alike(self.module.buffers())
        meter = Meter(self.world.device)
        self._evaluated.set_epoch(0)
        for batch in meter.waiting(self._evaluated):
            images, labels = self._moved(batch)
            with torch.autocast(self.world.device.type, self._precision, enabled=self._precision is not None):
                scores = self.module(images).float()
            valid = batch["valid"].to(self.world.device)
            scores, labels = scores[valid], labels[valid]
            meter.add(F.cross_entropy(scores, labels, reduction="sum"), scores, labels)
            name = self._evaluated.split.name
            self.listener(Progress("evaluate", name, self._evaluated.step, len(self._evaluated), "steps"))
        return meter.row(self.world, phase="evaluate", epoch=epoch, step=self._step)

    def _moved(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        images = batch["image"]
        if not isinstance(images, torch.Tensor):
            reason = "its images differ in size and nothing makes them one"
            raise BadArgument("augment", self.job.augment, reason, "use --augment imagenet_train")
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        device = self.world.device
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        if not self._fits:
            check_size(self.module, images, self.job.model)
            self._fits = True
        return images, batch["label"].to(device, non_blocking=True)

    # -- what lasts -----------------------------------------------------------------------------------------------

    def _write(self, row: Row, outcome: Outcome) -> None:
        outcome.rows.append(row)
        for log in self.logs:
            log.write(row)
        if self.world.leads:
            text = (
                f"epoch {row.epoch + 1}: loss {row.loss:.4f}, top-1 {row.top1:.2%}, top-5 {row.top5:.2%}, "
                f"{row.images_s:,.0f} images/s, {row.wait:.1%} of the time waiting for data"
            )
            self.listener(Note(row.phase, text))

    def _save(self, state: dict[str, int | str], *, seen: list[float] | None = None, best: bool = False) -> None:
        """``seen``: the totals of an epoch that is not over."""
        if self.job.folder is None or not self.world.leads:
            return
        parts = {
            "facts": self._facts,
            "model": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "loader": state,
            "step": self._step,
            "best": self._best,
            "rows": [asdict(row) for row in self.rows],
            "seen": seen or [],
        }
        checkpoint.save(self.job.folder / checkpoint.FILENAME, parts)
        if best:
            checkpoint.save(self.job.folder / checkpoint.BEST, {"facts": self._facts, "model": parts["model"]})

    def restore(self, loader: StreamingLoader) -> None:
        """Be where the checkpoint was written, and ``loader`` too. Raises `BadArgument`."""
        assert self.job.folder is not None
        found = checkpoint.load(self.job.folder / checkpoint.FILENAME, self._facts)
        self.module.load_state_dict(found["model"])
        self._optimizer.load_state_dict(found["optimizer"])
        self._scaler.load_state_dict(found["scaler"])
        loader.load_state_dict(found["loader"])
        self._step, self._best, self._seen = found["step"], found["best"], found["seen"]
        self.rows = [Row(**row) for row in found["rows"]]


def _groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only: not for biases, nor for the scales of normalisation."""
    kernels: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for each in module.parameters():
        (kernels if each.ndim > 1 else others).append(each)
    return [{"params": kernels, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
