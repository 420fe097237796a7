"""What a source was told will be read: how often each block still is, and when it was read for the last time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from datahub.store.cache.block import Block


class Ahead:
    """Announced reads of blocks that are still to come. Not safe in threads by itself."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[Block, int]] = {}
        self.bytes = 0
        """Of the blocks announced and not read to the end."""

    def announce(self, reads: Iterable[tuple[Block, int]]) -> list[Block]:
        """(block, reads of it) to come; gives the blocks that were not announced already, in order."""
        new = []
        for block, times in reads:
            known = self._left.get(block.key)
            if known is None:
                new.append(block)
                self.bytes += block.size
            self._left[block.key] = (block, times + (known[1] if known else 0))
        return new

    def consume(self, reads: Mapping[str, int]) -> list[str]:
        """Key -> times it was read now; gives the keys that nothing more was announced of."""
        done = []
        for key, times in reads.items():
            known = self._left.get(key)
            if known is None:
                continue
            block, left = known
            if left > times:
                self._left[key] = (block, left - times)
            else:
                del self._left[key]
                self.bytes -= block.size
                done.append(key)
        return done

    def clear(self) -> None:
        self._left.clear()
        self.bytes = 0
