"""A Lightning ``DataModule`` over `StreamingLoader`: ``datahub.loader.lightning.DataModule``. Extra: ``lightning``.

Lightning restarts at a batch of an epoch and leaves it to the data to be there. How far a training loop has come, the
trainer itself knows best: a loader may have given a batch that was never trained on. So every epoch begins where the
trainer's progress says, which costs nothing, for the order is a formula; the state in the checkpoint proves that the
order is still the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from datahub.core.errors import MissingExtra, StateMismatch
from datahub.core.settings import Settings, resolve
from datahub.loader.opening import open_or_fetch
from datahub.loader.recipe import Transform
from datahub.loader.streaming import StreamingLoader

try:
    from lightning.pytorch import LightningDataModule, Trainer
except ImportError as error:
    raise MissingExtra("lightning", "datahub.loader.lightning") from error


class Feed:
    """What the trainer iterates: ``loader``, from where ``trainer`` is."""

    def __init__(self, loader: StreamingLoader, trainer: Trainer) -> None:
        self.loader, self._trainer = loader, trainer

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """A generator, so that the trainer's progress is read when the first batch is asked for, not before."""
        self.loader.load_state_dict(self.state_dict())
        yield from self.loader

    def state_dict(self) -> dict[str, int | str]:
        """The loader's, right after the last batch that the trainer has taken."""
        facts = self.loader.state_dict()
        taken = (self._trainer.fit_loop.batch_idx + 1) * int(facts["batch"])
        position = min(taken, self.loader.samples)
        return {**facts, "epoch": self._trainer.current_epoch, "position": position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that ``state`` is of this order. Raises `StateMismatch`."""
        try:
            self.loader.load_state_dict(state)
        except StateMismatch as mismatch:
            hint = "train with the arguments of that run; on other world sizes, with global_batch_size"
            raise StateMismatch(mismatch.changed, hint) from mismatch


class DataModule(LightningDataModule):
    """Splits of ``ref`` for a ``lightning.Trainer``; ``options`` are arguments of `StreamingLoader`.

    ``train`` is shuffled by ``seed``; ``val``, ``test`` and ``predict`` are not, and take ``eval_transform`` and
    ``eval_batch_size`` (default: those of training). ``val`` and ``test`` are left out where the dataset has no split
    of that name. Ranks are Lightning's; each makes the same number of steps. A checkpoint resumes at the exact batch,
    on another number of ranks too where ``global_batch_size`` is given; one of other data, seed or batch size is
    refused with `StateMismatch` when training starts.
    """

    def __init__(
        self,
        ref: str,
        *,
        batch_size: int | None = None,
        global_batch_size: int | None = None,
        eval_batch_size: int | None = None,
        train: str = "train",
        val: str = "val",
        test: str = "test",
        transform: Transform | None = None,
        eval_transform: Transform | None = None,
        seed: int = 0,
        drop_last: bool = False,
        download: bool = False,
        settings: Settings | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._ref, self._download = ref, download
        self._settings = resolve() if settings is None else settings
        self._names = {"train": train, "val": val, "test": test}
        shared = {**options, "seed": seed, "settings": self._settings}
        sizes = {"batch_size": batch_size, "global_batch_size": global_batch_size}
        self._training = {**shared, **sizes, "transform": transform, "drop_last": drop_last, "shuffle": True}
        smaller = sizes if eval_batch_size is None else {"batch_size": eval_batch_size}
        self._evaluation = {**shared, **smaller, "transform": transform if eval_transform is None else eval_transform}
        self._feed: Feed | None = None
        self._saved: Mapping[str, Any] | None = None
        self._loaders: list[StreamingLoader] = []

    def prepare_data(self) -> None:
        """Fetch what is missing; Lightning calls it once a node."""
        open_or_fetch(self._ref, self._settings, self._download)

    def train_dataloader(self) -> Feed:
        assert self.trainer is not None
        self._feed = Feed(self._loader("train", self._training), self.trainer)
        if self._saved is not None:
            self._feed.load_state_dict(self._saved)
        return self._feed

    def val_dataloader(self) -> list[StreamingLoader]:
        return self._evaluated("val")

    def test_dataloader(self) -> list[StreamingLoader]:
        return self._evaluated("test")

    def predict_dataloader(self) -> list[StreamingLoader]:
        return self._evaluated("test")

    def state_dict(self) -> dict[str, Any]:
        """Lightning puts it into checkpoints: a state that a `StreamingLoader` takes as well."""
        return {} if self._feed is None else dict(self._feed.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict or None

    def teardown(self, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        while self._loaders:
            self._loaders.pop().close()

    def _evaluated(self, role: str) -> list[StreamingLoader]:
        dataset = open_or_fetch(self._ref, self._settings, False)
        known = self._names[role] in dataset.splits or self._names[role] != role
        return [self._loader(role, self._evaluation)] if known else []

    def _loader(self, role: str, arguments: Mapping[str, Any]) -> StreamingLoader:
        self._loaders.append(StreamingLoader(self._ref, self._names[role], **arguments))
        return self._loaders[-1]
