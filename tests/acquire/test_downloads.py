from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from datahub.acquire import partial, plan, receipts, run
from datahub.acquire.origins import MemoryOrigin
from datahub.acquire.partial import SEGMENT
from datahub.acquire.policy import RetryPolicy
from datahub.core import digests
from datahub.core.errors import (
    AllMirrorsFailed,
    ConnectionLost,
    DatahubError,
    DigestMismatch,
    DiskFull,
    HttpError,
    ManualFiles,
    MissingAtOrigin,
    NotTheFile,
    NotWritable,
    Offline,
    OriginError,
    SizeMismatch,
)
from datahub.core.events import Event, Note
from datahub.core.settings import Settings
from datahub.registry.schema import Access, File, Layout, Licence, Manifest, Tried
from tests.acquire.server import Behaviour, serving

SMALL = random.Random(1).randbytes(300_000)
LARGE = random.Random(2).randbytes(3 * SEGMENT + 12_345)
FAST = RetryPolicy(attempts=4, base=0.01, cap=0.03, retry_after_cap=0.3)


def manifest(*mirrors: str, data: bytes = SMALL, access: Access | None = None, **facts: object) -> Manifest:
    known: dict[str, object] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **facts}
    file = File(filename="file.bin", role="all", mirrors=list(mirrors), **known)  # type: ignore[arg-type]
    return Manifest(
        name="toy", version="1", title="toy", licence=Licence(), task="x", splits={"train": 1}, files=[file],
        tried=Tried(how="never"), layout=Layout(kind="idx"), access=access or Access(),
    )  # fmt: skip


@pytest.fixture
def get(settings: Settings) -> Callable[..., Path]:
    def call(wanted: Manifest, **options: object) -> Path:
        return run(plan(wanted, settings), settings, policy=FAST, **options)[0].path  # type: ignore[arg-type]

    return call


def nothing_published(settings: Settings) -> bool:
    return not list(settings.downloads.rglob("file.bin"))


@pytest.mark.parametrize("data", [SMALL, LARGE, b"x"], ids=["small", "several segments", "one byte"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_arrives_whole(data: bytes, ranges: bool, get, settings: Settings) -> None:
    with serving(file__bin=Behaviour(data, ranges=ranges)) as origin:
        path = get(manifest(f"{origin.url}/file.bin", data=data, md5=hashlib.md5(data).hexdigest()))
    assert path == settings.downloads / "toy" / "1" / "file.bin"
    assert path.read_bytes() == data
    assert sorted(each.name for each in path.parent.iterdir()) == ["file.bin"]


def test_large_files_come_over_several_connections(get) -> None:
    with serving(file__bin=Behaviour(LARGE, pause=0.005)) as origin:
        get(manifest(f"{origin.url}/file.bin", data=LARGE))
    spans = {headers["Range"] for _, headers in origin.requests}
    assert len(spans) == len(origin.requests) == 4
    assert all(headers["Accept-Encoding"] == "identity" for _, headers in origin.requests)


def test_second_run_reads_no_data(get, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(file__bin=Behaviour(SMALL)) as origin:
        wanted = manifest(f"{origin.url}/file.bin")
        get(wanted)
        monkeypatch.setattr(digests, "of_file", lambda *a, **k: pytest.fail("hashed again"))
        get(wanted)
        assert len(origin.requests) == 1
    assert plan(wanted, settings).items[0].state == "verified"


def test_a_touched_file_is_hashed_again_and_a_wrong_one_replaced(get, settings: Settings) -> None:
    with serving(file__bin=Behaviour(SMALL)) as origin:
        wanted = manifest(f"{origin.url}/file.bin")
        path = get(wanted)
        os.utime(path, (1, 1))
        assert receipts.read(settings, path) is None
        assert get(wanted) == path
        assert len(origin.requests) == 1
        path.write_bytes(SMALL[:-1] + b"?")
        assert get(wanted).read_bytes() == SMALL
        assert len(origin.requests) == 2


@pytest.mark.parametrize("status", [403, 404, 410])
def test_refusals_go_to_the_next_mirror_at_once(status: int, get) -> None:
    with serving(a=Behaviour(statuses=[status] * 9), b=Behaviour(SMALL)) as origin:
        assert get(manifest(f"{origin.url}/a", f"{origin.url}/b")).read_bytes() == SMALL
        assert [path for path, _ in origin.requests] == ["/a", "/b"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_troubles_are_tried_again(status: int, get) -> None:
    with serving(a=Behaviour(SMALL, statuses=[status, status])) as origin:
        assert get(manifest(f"{origin.url}/a")).read_bytes() == SMALL
        assert len(origin.requests) == 3


def test_retry_after_is_honoured(get) -> None:
    with serving(a=Behaviour(SMALL, statuses=[429], headers={"Retry-After": "1"})) as origin:
        began = time.monotonic()
        get(manifest(f"{origin.url}/a"))
        assert time.monotonic() - began >= FAST.retry_after_cap


@pytest.mark.parametrize(
    ("behaviour", "kind", "code"),
    [
        (Behaviour(SMALL[:-1] + b"?"), DigestMismatch, 3),
        (Behaviour(SMALL[:1000]), SizeMismatch, 3),
        (Behaviour(SMALL + b"more"), SizeMismatch, 3),
        (Behaviour(SMALL, claim=len(SMALL) + 10, ranges=False), SizeMismatch, 3),
        (Behaviour(SMALL, claim=len(SMALL) - 10, ranges=False), SizeMismatch, 3),
        (Behaviour(b"  <!DOCTYPE html><html>quota exceeded</html>"), NotTheFile, 3),
        (Behaviour(SMALL, cut=[1000] * 50, ranges=False), ConnectionLost, 4),
        (Behaviour(SMALL, statuses=[500] * 50), HttpError, 4),
        (Behaviour(redirect="file:///etc/passwd"), HttpError, 4),
        (Behaviour(redirect="/a"), HttpError, 4),
    ],
    ids=["wrong", "short", "long", "claims more", "claims less", "page", "cut", "broken", "to a file", "in circles"],
)
def test_a_lying_origin_publishes_nothing(
    behaviour: Behaviour, kind: type[DatahubError], code: int, get, settings
) -> None:
    with serving(a=behaviour) as origin, pytest.raises(kind) as caught:
        get(manifest(f"{origin.url}/a"))
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert nothing_published(settings)


def test_when_all_mirrors_fail_each_is_named(get) -> None:
    with (
        serving(a=Behaviour(statuses=[404]), b=Behaviour(SMALL[:-1] + b"?")) as origin,
        pytest.raises(AllMirrorsFailed) as caught,
    ):
        get(manifest(f"{origin.url}/a", f"{origin.url}/b"))
    assert "HTTP 404" in str(caught.value)
    assert "digest is" in str(caught.value)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(get) -> None:
    with serving(a=Behaviour(LARGE, cut=[5_000_000, 1_000_000, 3_000_000])) as origin:
        assert get(manifest(f"{origin.url}/a", data=LARGE)).read_bytes() == LARGE
        assert origin.sent < len(LARGE) + SEGMENT


def test_credentials_stay_with_their_host(get) -> None:
    with (
        serving(file__bin=Behaviour(SMALL)) as other,
        serving(file__bin=Behaviour(redirect=f"{other.url}/file.bin")) as first,
    ):
        secret = first.url.replace("http://", "http://user:word@")
        assert get(manifest(f"{secret}/file.bin")).read_bytes() == SMALL
    assert "authorization" in {name.lower() for name in first.requests[0][1]}
    assert "authorization" not in {name.lower() for name in other.requests[0][1]}


KILLED = """
import sys
from pathlib import Path
from datahub.acquire import plan, run
from datahub.core.settings import Settings
from tests.acquire.test_downloads import LARGE, manifest
settings = Settings(home=Path(sys.argv[1]))
run(plan(manifest(sys.argv[2], data=LARGE), settings), settings, jobs=2)
"""


def start(settings: Settings, url: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", KILLED, str(settings.home), url], cwd=root)


def test_kill_9_loses_little_and_publishes_nothing(get, settings: Settings) -> None:
    with serving(a=Behaviour(LARGE, pause=0.02)) as origin:
        child = start(settings, f"{origin.url}/a")
        while origin.sent < 20_000_000:
            time.sleep(0.02)
        child.kill()
        child.wait()
        assert nothing_published(settings)
        had = partial.progress(settings.downloads / "toy" / "1" / "file.bin")
        assert had > 5_000_000
        origin.paths["/a"].pause = 0
        origin.sent = 0
        assert get(manifest(f"{origin.url}/a", data=LARGE)).read_bytes() == LARGE
        slack = 4 << 20  # what was under way when the count began
        assert origin.sent <= len(LARGE) - had + slack


def test_a_file_that_changed_meanwhile_is_started_over(get, settings: Settings) -> None:
    with serving(a=Behaviour(LARGE, pause=0.02)) as origin:
        child = start(settings, f"{origin.url}/a")
        while origin.sent < 8_000_000:
            time.sleep(0.02)
        child.kill()
        child.wait()
        new = LARGE[::-1]
        origin.paths["/a"] = Behaviour(new, etag='"v2"')
        assert get(manifest(f"{origin.url}/a", data=new)).read_bytes() == new


def test_a_download_goes_on_with_another_signature(get, settings: Settings) -> None:
    with serving(**{"large__bin?sig=0ld": Behaviour(LARGE, cut=[1 << 20] * 40)}) as origin:
        origin.paths["/large.bin?sig=n3w"] = Behaviour(LARGE)
        with pytest.raises(OriginError) as caught:
            wanted = plan(manifest(f"{origin.url}/large.bin?sig=0ld", data=LARGE), settings)
            run(wanted, settings, policy=RetryPolicy(attempts=1, base=0.0))
        kept = next(settings.downloads.rglob("*.part.json")).read_text()
        assert "0ld" not in f"{caught.value} {kept}" and f"{origin.url}/large.bin" in kept
        had = partial.progress(next(settings.downloads.rglob("*.part.json")).with_suffix("").with_suffix(""))
        assert had > 0
        origin.sent = 0
        assert get(manifest(f"{origin.url}/large.bin?sig=n3w", data=LARGE)).read_bytes() == LARGE
        assert origin.sent <= len(LARGE) - had


def test_many_processes_download_once(settings: Settings) -> None:
    with serving(a=Behaviour(LARGE, pause=0.001)) as origin:
        running = [start(settings, f"{origin.url}/a") for _ in range(3)]
        assert [each.wait(timeout=60) for each in running] == [0, 0, 0]
        assert origin.sent == len(LARGE)


def test_a_full_disk_keeps_what_came(get, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = os.pwrite, [0]

    def full(descriptor: int, data: bytes, at: int) -> int:
        written[0] += len(data)
        if written[0] > 20_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data, at)

    with serving(a=Behaviour(LARGE)) as origin:
        wanted = manifest(f"{origin.url}/a", data=LARGE)
        with monkeypatch.context() as patch, pytest.raises(DiskFull) as caught:
            patch.setattr(os, "pwrite", full)
            get(wanted)
        assert caught.value.exit_code == 5
        assert nothing_published(settings)
        origin.sent = 0
        assert get(wanted).read_bytes() == LARGE
        assert origin.sent < len(LARGE)


def test_a_disk_that_is_too_small_is_known_before(settings: Settings) -> None:
    found = replace(plan(manifest("http://127.0.0.1:9/x"), settings), disk_free=1000)
    with pytest.raises(DiskFull) as caught:
        run(found, settings, policy=FAST)
    assert (caught.value.needed, caught.value.free) == (len(SMALL), 1000)


def test_no_permission_to_write(get, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> int:
        raise OSError(errno.EACCES, "Permission denied")

    with serving(a=Behaviour(LARGE)) as origin, pytest.raises(NotWritable):
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        get(manifest(f"{origin.url}/a", data=LARGE))


def test_nobody_listens(get) -> None:
    with pytest.raises(ConnectionLost, match=r"127\.0\.0\.1:9"):
        get(manifest("http://127.0.0.1:9/file.bin"))


def test_offline_refuses_the_network_but_takes_what_is_here(settings: Settings, get) -> None:
    with serving(a=Behaviour(SMALL)) as origin:
        wanted = manifest(f"{origin.url}/a")
        offline = replace(settings, offline=True)
        with pytest.raises(Offline):
            run(plan(wanted, offline), offline)
        get(wanted)
        assert run(plan(wanted, offline), offline)[0].path.is_file()


def test_a_mirror_folder_is_read_in_place(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "site" / "toy").mkdir(parents=True)
    there = tmp_path / "site" / "toy" / "file.bin"
    there.write_bytes(SMALL)
    for from_ in (str(tmp_path / "site"), f"file://{tmp_path}/site", str(there.parent)):
        at = replace(settings, from_=from_)
        assert run(plan(manifest(), at), at)[0].path == there
    assert not settings.downloads.exists()
    there.unlink()
    with pytest.raises(MissingAtOrigin) as caught:
        run(plan(manifest(), at), at)
    assert caught.value.exit_code == 4
    assert str(tmp_path / "site" / "toy" / "file.bin") in str(caught.value)


def test_a_mirror_url_replaces_the_mirrors(settings: Settings) -> None:
    with serving(**{"toy/file__bin": Behaviour(SMALL)}) as origin:
        at = replace(settings, from_=f"{origin.url}/")
        assert run(plan(manifest("http://127.0.0.1:9/never"), at), at)[0].path.read_bytes() == SMALL


def test_any_fsspec_url_is_a_mirror(get) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/mirror/file.bin", LARGE)
    assert get(manifest("memory://mirror/file.bin", data=LARGE)).read_bytes() == LARGE
    with pytest.raises(HttpError, match="404"):
        get(manifest("memory://mirror/none.bin", data=SMALL))


def test_without_a_published_digest_the_first_download_is_trusted_aloud(settings: Settings) -> None:
    heard: list[Event] = []
    with serving(a=Behaviour(SMALL)) as origin:
        wanted = manifest(f"{origin.url}/a", sha256=None, bytes=None)
        found = run(plan(wanted, settings), settings, policy=FAST, listener=heard.append)[0]
    assert found.sha256 == hashlib.sha256(SMALL).hexdigest()
    assert any(isinstance(each, Note) and each.warning and "on trust" in each.message for each in heard)


def test_manual_files_say_what_a_person_must_do(settings: Settings) -> None:
    with pytest.raises(ManualFiles) as caught:
        plan(manifest(access=Access(kind="manual", instructions="register first")), settings)
    assert caught.value.exit_code == 6
    assert "register first" in str(caught.value)
    assert "--from DIR" in str(caught.value)


def test_the_plan_is_printable(settings: Settings) -> None:
    found = plan(manifest("http://host/file.bin"), settings)
    assert found.bytes_missing == found.disk_needed == len(SMALL)
    assert "missing   file.bin  300.0 kB  from http://host/file.bin" in found.lines()[0]
    assert found.to_dict()["files"][0]["state"] == "missing"


def test_the_fake_origin_behaves_as_the_real_ones() -> None:
    fake = MemoryOrigin(SMALL, cut=[10], statuses=[503])
    with pytest.raises(HttpError):
        fake.open(0, 5, None)
    with pytest.raises(ConnectionLost):
        list(fake.open(0, 100, None).chunks)
    assert b"".join(fake.open(5, 9, "v1").chunks) == SMALL[5:9]
    changed = fake.open(5, 9, "other")
    assert not changed.partial
    assert b"".join(changed.chunks) == SMALL
