"""Foreign shards in a bucket of an S3-speaking server."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from datahub.core.errors import BadArgument
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from tests.loader.conftest import same
from tests.pack.test_ground import bucket, endpoint, needs_s3  # noqa: F401 - fixtures
from tests.stream.foreign.shards import image, sample, tar, write_shards

pytestmark = needs_s3


@pytest.mark.filterwarnings("default")
def test_of_a_bucket(bucket: str, tmp_path: Path) -> None:  # noqa: F811
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
