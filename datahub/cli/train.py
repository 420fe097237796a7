"""``datahub train``: the reference training job."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from datahub.cli.app import App
from datahub.core.refs import reference


@click.command("train")
@click.argument("ref", metavar="REF")
@click.option("--model", default="resnet18", metavar="NAME", help="Of torchvision.models. [resnet18]")
@click.option("--weights", metavar="NAME|FILE|URL", help="Weights to begin with: DEFAULT, IMAGENET1K_V1, a file.")
@click.option("--dir", "folder", metavar="DIR", help="Keep the checkpoint and the logs there.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --dir.")
@click.option("--eval-only", is_flag=True, help="Evaluate the weights, or the checkpoint in --dir, and end.")
@click.option("--split", default="train", metavar="NAME", help="To train on. [train]")
@click.option("--held-out", metavar="NAME", help="To evaluate on. [val, validation or test]")
@click.option("--epochs", type=click.IntRange(1), default=10, help="[10]")
@click.option("--batch-size", "batch", type=click.IntRange(1), default=256, help="Of the whole job. [256]")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Highest learning rate. [0.1 a 256 of batch]")
@click.option("--seed", type=int, default=0, help="[0]")
@click.option("--augment", metavar="PRESET", help="Training images: imagenet_train, cifar_train_strong, ...")
@click.option(
    "--mixup", type=click.FloatRange(0, min_open=True), metavar="ALPHA", help="Mix samples in pairs, say with 0.2."
)
@click.option(
    "--cutmix",
    type=click.FloatRange(0, min_open=True),
    metavar="ALPHA",
    help="Paste boxes of one sample into another, say with 1.",
)
@click.option("--amp", type=click.Choice(["off", "bf16", "fp16"]), help="[bf16 on a GPU, off elsewhere]")
@click.option("--device", metavar="DEVICE", help="cpu or cuda. [cuda where there is one]")
@click.option("--workers", type=click.IntRange(0), help="Threads that make batches, a rank.")
@click.option("--save-every", type=click.IntRange(1), default=500, help="Steps between checkpoints. [500]")
@click.option("--steps", type=click.IntRange(1), help="Stop after so many steps, with a checkpoint.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard logs beside the CSV.")
@click.option("--download", is_flag=True, help="Fetch the dataset if it is not packed here.")
@click.option("--from", "from_", metavar="DIR|URL", help="Where published files and weights are. [DATAHUB_FROM]")
@click.pass_obj
def command(app: App, /, ref: str, from_: str | None, folder: str | None, **options: Any) -> None:
    """Train a torchvision model on REF, plain PyTorch; under torchrun, on all its processes.

    \b
    datahub train cifar10 --model resnet18 --dir runs/a
    torchrun --nproc-per-node 8 -m datahub train imagenet --model resnet50 --dir runs/b
    datahub train imagenet --model resnet50 --weights DEFAULT --eval-only
    """
    reference(ref)
    if from_:
        app.flags["from_"] = from_
    from datahub.train.config import Job
    from datahub.train.job import run as work

    job = Job(ref=ref, folder=Path(folder) if folder else None, **options)
    with app.listener() as listener:
        outcome = work(job, app.settings, listener)
    if not outcome.leads:
        return
    app.emit({"ref": ref, "finished": outcome.finished, "rows": [asdict(row) for row in outcome.rows]})
    for row in outcome.rows[-2:]:
        app.echo(
            f"{row.phase:<9} epoch {row.epoch + 1}: top-1 {row.top1:.2%}, top-5 {row.top5:.2%}, loss {row.loss:.4f}, "
            f"{row.images_s:,.0f} images/s, {row.wait:.1%} waiting for data"
        )
    if not outcome.finished:
        how = f"go on with --dir {folder} --resume" if folder else "nothing was kept"
        app.echo(f"not finished: {how}")
