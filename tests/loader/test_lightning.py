"""A real Lightning trainer: interrupted anywhere, resumed, and the same batches as one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import datahub
from datahub.core.errors import StateMismatch, UnknownSplit
from datahub.loader.streaming import StreamingLoader
from tests.loader.conftest import check, seen

lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint  # noqa: E402

from datahub.loader.lightning import DataModule  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


class Model(lightning.LightningModule):
    """Remembers what it was trained and validated on."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.trained: list[tuple[int, int, Any]] = []
        self.validated: list[Any] = []
        self.fail_at = fail_at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == self.fail_at:
            raise ZeroDivisionError("in the training step")
        check(batch)
        self.trained.append((self.current_epoch, batch_idx, batch))
        return self.layer(batch["label"][:, None].float()).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        check(batch, "test")
        self.validated.append(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def fit(home, tmp_path):
    def run(
        model: Model, checkpoint: Path | None = None, callbacks: tuple[Any, ...] = (), changes: Any = (), **options: Any
    ) -> Model:
        arguments = {"batch_size": 8, "val": "test", "seed": 4, "num_workers": 2, **dict(changes)}
        trainer = lightning.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=bool(callbacks),
            default_root_dir=tmp_path,
            callbacks=list(callbacks),
            **{"max_epochs": 3, "num_sanity_val_steps": 1, **options},
        )
        trainer.fit(model, datamodule=DataModule("tiny", settings=home, **arguments), ckpt_path=checkpoint)
        return model

    return run


def rows(model: Model) -> list[tuple[int, int, list[int]]]:
    return [(epoch, step, batch["index"].tolist()) for epoch, step, batch in model.trained]


@pytest.fixture
def whole(home) -> list[tuple[int, int, list[int]]]:
    with StreamingLoader("tiny", batch_size=8, seed=4, shuffle=True, settings=home) as loader:
        return [(epoch, n, batch["index"].tolist()) for epoch in range(3) for n, batch in enumerate(loader)]


def test_an_uninterrupted_run_has_the_loaders_epochs(fit, whole):
    model = fit(Model())
    assert rows(model) == whole
    assert seen(model.validated) == [*range(7), *range(7), *range(7), *range(7)]
    assert datahub.state_of(model.trained[9][2])["position"] == 24, "moved to the device with its state"


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 3}, {"limit_train_batches": 5}], ids=str)
def test_every_checkpoint_resumes_exactly(fit, whole, tmp_path, options):
    every = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=1, save_top_k=-1)
    ends = ModelCheckpoint(tmp_path / "kept", "end-{step}", save_on_train_epoch_end=True, save_top_k=-1)
    expected = rows(fit(Model(), callbacks=(every, ends), **options))
    if not options:
        assert expected == whole
    saved = sorted((tmp_path / "kept").glob("*.ckpt"))
    assert len(saved) == len(expected) + 3
    for path in saved:
        step = int(path.stem.split("=")[1].split("-")[0])
        if step in (1, 4, 5, 7, 10, 14, 18, len(expected)):
            assert rows(fit(Model(), path, **options)) == expected[step:], path.name


def test_a_batch_that_was_given_but_not_trained_on_comes_again(fit, whole, tmp_path):
    with pytest.raises(ZeroDivisionError):
        fit(Model(fail_at=10), callbacks=(OnExceptionCheckpoint(tmp_path),))
    assert rows(fit(Model(), tmp_path / "on_exception.ckpt")) == whole[10:]


def test_the_checkpoint_holds_a_loaders_state(fit, home, whole, tmp_path):
    fit(Model(), callbacks=(ModelCheckpoint(tmp_path, "at", every_n_train_steps=9),), max_steps=9)
    state = torch.load(tmp_path / "at.ckpt", weights_only=True)["DataModule"]
    with StreamingLoader("tiny", batch_size=8, seed=4, shuffle=True, settings=home) as loader:
        loader.load_state_dict(state)
        assert (loader.epoch, loader.step) == (1, 2)
        assert next(iter(loader))["index"].tolist() == whole[9][2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 5}, "seed was 4, is 5"),
        ({"batch_size": 4}, r"batch_size was 8, is 4; train with the arguments of that run.*global_batch_size"),
        ({"train": "test", "val": "none"}, r"tiny@1.0/published:train, is tiny@1.0/published:test"),
    ],
)
@pytest.mark.parametrize("step", [4, 7])
def test_a_checkpoint_of_another_run_is_refused(fit, tmp_path, changes, message, step):
    callbacks = (ModelCheckpoint(tmp_path, "at", every_n_train_steps=step),)
    fit(Model(), callbacks=callbacks, max_steps=step, limit_val_batches=0)
    with pytest.raises(StateMismatch, match=message):
        fit(Model(), tmp_path / "at.ckpt", changes=changes, limit_val_batches=0)


def test_splits_that_are_not_there(fit):
    model = fit(Model(), changes={"val": "val"}, max_epochs=1)
    assert len(model.trained) == 7 and model.validated == []
    with pytest.raises(UnknownSplit, match="vall"):
        fit(Model(), changes={"val": "vall"})
