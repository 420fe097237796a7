"""`ForeignDataset`: shards where they are, tables in a folder of this machine, keys as the shards have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datahub.core.refs import Ref
from datahub.store.dataset import Dataset, Elsewhere, Split
from datahub.store.record import Record
from datahub.stream.foreign.facts import Facts
from datahub.stream.foreign.local import ForeignShards


class ForeignSplit(Split):
    """A split whose keys are names, not numbers."""

    @cached_property
    def shards(self) -> tuple[Path, ...]:
        assert isinstance(self.dataset, ForeignDataset)
        places = self.dataset.places
        return tuple(Path(places[each.path].named.url) for each in self.entry.shards)

    def source_here(self) -> ForeignShards:
        """What reads the shards, which are on this machine."""
        assert isinstance(self.dataset, ForeignDataset)
        return ForeignShards(str(self.dataset.ref), [self.dataset.places[each.path] for each in self.entry.shards])

    def _read(self, index: int, shard: int, offset: int, size: int) -> bytes:
        if self.dataset.elsewhere is not None:
            return super()._read(index, shard, offset, size)
        return self._here.read(shard, offset, size)

    def close(self) -> None:
        super().close()
        if "_here" in self.__dict__:
            self._here.close()

    @cached_property
    def _here(self) -> ForeignShards:
        return self.source_here()

    def key(self, index: int) -> str:
        found: str = self._keys[index].as_py()
        return found

    def numbers(self) -> NDArray[np.int64]:
        """A number of each sample that hangs on nothing but its shard's name and its key."""
        names = [each.path.rpartition("/")[2] for each in self.entry.shards]
        shards = self.locate["shard"].tolist()
        texts = (f"{names[shard]}/{key}" for shard, key in zip(shards, self._keys.to_pylist(), strict=True))
        digests = b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
        return np.frombuffer(digests, "<i8").astype(np.int64)

    @cached_property
    def _keys(self) -> Any:
        return self.table(["key"])["key"].combine_chunks()


class ForeignDataset(Dataset):
    """``folder`` holds the tables, ``places`` says what each shard of the record is here."""

    def __init__(
        self, ref: Ref, folder: Path, record: Record, places: Sequence[Facts], *, elsewhere: Elsewhere | None
    ) -> None:
        super().__init__(ref, folder, record, elsewhere=elsewhere)
        self.places: Mapping[str, Facts] = {each.named.name: each for each in places}
        self.splits = {name: ForeignSplit(self, name, entry) for name, entry in record.splits.items()}

    def file(self, name: str) -> Path:
        return self.path / name
