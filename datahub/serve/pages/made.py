"""What pages make once and keep: labels of splits, and pictures."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from aiohttp import web

from datahub.serve.engine import Engine

if TYPE_CHECKING:
    from datahub.serve.pages.grid import Labels
    from datahub.serve.pages.pictures import Pictures


class Made:
    """Made when they are first asked for, for what they are made with is imported then. Belongs to one event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @cached_property
    def labels(self) -> Labels:
        from datahub.serve.pages.grid import Labels

        return Labels(self._engine)

    @cached_property
    def pictures(self) -> Pictures:
        from datahub.serve.pages.pictures import Pictures

        return Pictures()

    def close(self) -> None:
        if "pictures" in vars(self):
            self.pictures.close()


MADE: web.AppKey[Made] = web.AppKey("made", Made)
