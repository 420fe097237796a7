"""What is told of the variants there are: the server's own, and what origins say they have."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from datahub.core.errors import DatahubError
from datahub.core.refs import Ref, version_key
from datahub.registry import catalog
from datahub.serve.library import Variant
from datahub.store.find import FALLBACK_VARIANT, default_variant
from datahub.wire.messages import DatasetInfo

if TYPE_CHECKING:
    from datahub.serve.state import Server


def everything(server: Server) -> list[DatasetInfo]:
    """Of the stores and of all origins that can be asked; newest versions first."""
    server.library.search()
    found = {_key(info): info for each in server.library.origins() for info in each.infos()}
    found |= {_key(info): info for info in map(_info, server.library.variants())}
    return _sorted([_with_default(server, info) for info in found.values()])


async def of_name(server: Server, name: str) -> list[DatasetInfo]:
    """Those of one dataset. What only an origin has, and cannot list, is looked for by the registry's versions.

    Raises as `OnDemand.want`.
    """
    found = [info for info in await server.in_thread(lambda: everything(server)) if info.name == name]
    return found or await server.asking(lambda: _asked(server, name))


def _asked(server: Server, name: str) -> list[DatasetInfo]:
    with suppress(DatahubError):
        for version in catalog(server.settings).versions(name)[::-1]:
            ref = Ref(name, version, default_variant(server.settings, Ref(name, version)))
            if (variant := server.library.look(ref)) is not None:
                return [_with_default(server, _info(variant))]
    if server.ondemand is not None:
        server.ondemand.want(Ref(name))
    return []


def _info(variant: Variant) -> DatasetInfo:
    record, ref = variant.record, variant.ref
    return DatasetInfo(
        name=ref.name,
        version=str(ref.version),
        variant=str(ref.variant),
        bytes=record.bytes(),
        samples={name: split.samples for name, split in record.splits.items()},
        etag=variant.etag,
        local=variant.folder is not None,
        title=record.title,
    )


def _with_default(server: Server, info: DatasetInfo) -> DatasetInfo:
    try:
        default = default_variant(server.settings, Ref(info.name, info.version))
    except DatahubError:
        default = FALLBACK_VARIANT
    values = {name: getattr(info, name) for name in info.__struct_fields__}
    return DatasetInfo(**(values | {"default": info.variant == default}))


def _key(info: DatasetInfo) -> tuple[str, str, str]:
    return info.name, info.version, info.variant


def _sorted(infos: list[DatasetInfo]) -> list[DatasetInfo]:
    infos.sort(key=lambda each: each.variant)
    infos.sort(key=lambda each: (version_key(each.version), each.version), reverse=True)
    return sorted(infos, key=lambda each: each.name)
