"""`datahub.Writer`: the packer's, with settings resolved as everywhere in the facade."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datahub.core.events import Listener, ignore
from datahub.core.refs import Ref
from datahub.core.settings import Settings, resolve
from datahub.pack import authoring


class Writer(authoring.Writer):
    __doc__ = authoring.Writer.__doc__

    def __init__(
        self,
        ref: str | Ref,
        fields: Mapping[str, str] | None = None,
        *,
        classes: Sequence[str] | None = None,
        part: str = "1/1",
        replace: bool = False,
        damaged: str = "keep",
        jobs: int | None = None,
        listener: Listener = ignore,
        settings: Settings | None = None,
    ) -> None:
        super().__init__(
            ref,
            fields,
            settings=resolve() if settings is None else settings,
            classes=classes,
            part=part,
            replace=replace,
            damaged=damaged,
            jobs=jobs,
            listener=listener,
        )
