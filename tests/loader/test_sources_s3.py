"""`source="s3://..."` against an S3-speaking server in a process of its own."""

from __future__ import annotations

import fsspec
import pytest

from datahub.core.errors import HttpError
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.loader.streaming import StreamingLoader
from datahub.store.export import export
from datahub.store.find import find
from tests.loader.conftest import same
from tests.pack.test_ground import bucket, endpoint, needs_s3  # noqa: F401 - fixtures

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
