"""`source="s3://..."` against an S3-speaking server in a process of its own."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from datahub.core.errors import BadArgument, HttpError
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.store.export import export
from datahub.store.find import find
from tests.loader.conftest import same
from tests.pack.test_ground import bucket, endpoint, needs_s3  # noqa: F401 - fixtures
from tests.stream.foreign.shards import image, sample, tar, write_shards

pytestmark = needs_s3


def test_what_export_wrote_is_streamed(home, make, bucket, tmp_path):  # noqa: F811
    export(find(home, Ref.parse("tiny")), bucket)
    far = Settings(home=tmp_path / "far")
    arguments = {"batch_size": 8, "shuffle": True, "num_workers": 2, "timeout": 60}
    with StreamingLoader("tiny", source=bucket, cache_dir=tmp_path / "c", settings=far, **arguments) as loader:
        local = make(shuffle=True)
        for _ in range(2):
            theirs = list(local)
            ours = list(loader)
            assert len(ours) == len(theirs) and all(map(same, ours, theirs))


def test_a_shard_that_is_not_there_is_named(home, bucket, tmp_path):  # noqa: F811
    export(find(home, Ref.parse("tiny")), bucket)
    fs, path = fsspec.core.url_to_fs(bucket)
    fs.rm_file(f"{path}/tiny-train-000001.tar")
    far = Settings(home=tmp_path / "far")
    loader = StreamingLoader("tiny", source=bucket, batch_size=8, settings=far, timeout=60)
    with loader, pytest.raises(HttpError, match=r"s3://.*/tiny-train-000001\.tar: HTTP 404"):
        list(loader)


@pytest.mark.filterwarnings("default")
def test_foreign_shards_of_a_bucket(bucket: str, tmp_path: Path) -> None:  # noqa: F811
    shards = write_shards(tmp_path / "shards")
    system, root = fsspec.core.url_to_fs(bucket)
    for path in shards:
        system.pipe_file(f"{root}/a/{path.name}", path.read_bytes())
    far, here = Settings(home=tmp_path / "far"), Settings(home=tmp_path / "here")

    def load(source: object, settings: Settings) -> StreamingLoader:
        return StreamingLoader("mine", source=source, settings=settings, batch_size=8, shuffle=True, timeout=60)  # type: ignore[arg-type]

    with load(tmp_path / "shards", here) as local:
        expected = list(local)
    for source in (f"{bucket}/a", f"{bucket}/a/*.tar", f"{bucket}/a/train-{{000000..000002}}.tar"):
        with load(source, far) as loader:
            assert all(map(same, list(loader), expected))
    assert len(list((far.home / "derived/shards").iterdir())) == 3, "a shard is scanned once, however it is named"
    system.pipe_file(f"{root}/a/{shards[0].name}", tar([*sample(0), *sample(1)]))
    with load(f"{bucket}/a", far) as loader:
        assert len(loader.split) == 32 and loader.split.read(0) == image(0)
    with pytest.raises(BadArgument, match=r"s3://.*/a/train-000003\.tar.*there is no such shard"):
        load(f"{bucket}/a/train-{{000002..000003}}.tar", far)
