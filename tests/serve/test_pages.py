"""The pages for people, as a program sees them. What a browser makes of them is `test_browser`."""

from __future__ import annotations

import html
import io
import json
import re
import time
from urllib.parse import quote, urlencode

import msgspec
import numpy as np
import pytest
from PIL import Image

from datahub.core.settings import Settings
from datahub.core.sizes import format_bytes
from datahub.serve.answers import Refusal
from datahub.serve.config import Tokens
from datahub.serve.pages import marks, pictures, session
from datahub.store import record as records
from datahub.store import rle
from datahub.store.record import FieldSpec
from tests.serve.conftest import big_variant, located
from tests.serve.running import running
from tests.store.builder import CLASSES, commit, damaged, label, tiny_variant

HOSTILE = "\"><script>alert(1)</script>&'{{7*7}}"
BROWSE = "/browse/tiny/1.0/published"
PICTURE = "/picture/tiny/1.0/published"
READ, ADMIN = "r" * 20, "a" * 20


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    settings = Settings(home=tmp_path_factory.mktemp("pages") / "home")
    folder = tiny_variant(settings.home, splits={"train": 130, "test": 6})
    made = records.read(folder)
    commit(folder, msgspec.structs.replace(made, title=HOSTILE, classes=["circle", HOSTILE, "star"]))
    big_variant(settings.home)
    return settings


@pytest.fixture(scope="module")
def server(home, tmp_path_factory):
    with running(home, tmp_path_factory.mktemp("log") / "access.log") as found:
        yield found


def keys_of(answer):
    assert answer.status == 200, answer.body
    return re.findall(r'class="key" aria-hidden="true">([^<]+)<', answer.body.decode())


def browse(server, **query):
    return server.ask(f"{BROWSE}?{urlencode({name.rstrip('_'): value for name, value in query.items()})}")


def key(row, split="train"):
    return f"{split}-{row:09d}"


def test_no_page_has_anything_inline_and_each_forbids_it(server):
    for path in ("/", BROWSE, f"{BROWSE}/{key(7)}", f"{BROWSE}/none", "/browse/big/1.0/published", "/login"):
        answer = server.ask(path)
        text = answer.body.decode()
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", text), path
        assert text.count("<h1") == 1 and '<html lang="en">' in text and 'href="#main"' in text


def test_hostile_names_are_text(server):
    for path in ("/", BROWSE, f"{BROWSE}?class=1", f"{BROWSE}/{key(2)}", f"{BROWSE}?{urlencode({'key': HOSTILE})}"):
        text = server.ask(path).body.decode()
        assert "<script>alert" not in text and "49" not in re.findall(r"&amp;&#39;(..)", text), path
        assert HOSTILE in html.unescape(text), path
    for path in (f"{BROWSE}/{quote(HOSTILE, safe='')}", f"/browse/{quote(HOSTILE, safe='')}/1.0/published"):
        answer = server.ask(path)
        assert answer.status == 404 and b"<script>alert" not in answer.body


def test_datasets_are_listed_with_sizes_and_pictures(server, home):
    text = server.ask("/").body.decode()
    assert "tiny@1.0/published" in text and "big@1.0/published" in text and "train 130" in text
    shown = re.findall(rf'src="({PICTURE}/[^"]+)"', text)
    assert [each.split("/")[-2] for each in shown] == [key(row) for row in (0, 32, 65, 97)]
    assert format_bytes(located(home).record.bytes()) in text


def test_the_grid_shows_every_sample_once(server):
    found = [name for page in (1, 2, 3) for name in keys_of(browse(server, page=page))]
    assert found == [key(row) for row in range(130)]
    assert keys_of(browse(server, split="test")) == [key(row, "test") for row in range(6)]
    assert keys_of(browse(server, page=99)) == found[96:]
    for odd in ("0", "-1", "x", "9" * 40, "²"):
        assert keys_of(browse(server, page=odd, split="none", class_=odd if odd != "0" else ""))[0] == key(0)


def test_a_class_is_all_of_its_samples(server):
    for number in range(len(CLASSES)):
        rows = [row for row in range(130) if label("train", row) == number]
        assert keys_of(browse(server, class_=number)) == [key(row) for row in rows][:48]
        assert keys_of(browse(server, class_=number, key="train-00000001")) == [
            key(row) for row in rows if 9 < row < 20
        ]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (key(42), [key(42)]),
        ("42", [key(42)]),
        (" 000000042 ", [key(42)]),
        ("test-000000003", [key(3, "test")]),
        ("train-00000012", [key(row) for row in range(120, 130)]),
        ("te", [key(row, "test") for row in range(6)]),
        ("train-000000130", []),
        ("999999999", []),
        ("none-000000001", []),
        ("'; --", []),
        ("x" * 3000, []),
        ("..%2f", []),
    ],
)
def test_samples_are_found_by_key(server, typed, found):
    assert keys_of(browse(server, key=typed)) == found


def test_gaps_in_the_keys_are_heeded(start, settings):
    folder = tiny_variant(settings.home)
    made = records.read(folder)
    gappy = msgspec.structs.replace(made.splits["train"], gaps=[1, 5])
    commit(folder, msgspec.structs.replace(made, splits={**made.splits, "train": gappy}))
    server = start(settings)
    expected = [number for number in range(22) if number not in (1, 5)]
    assert keys_of(browse(server)) == [key(number) for number in expected]
    assert keys_of(browse(server, key="5")) == [] and keys_of(browse(server, key="6")) == [key(6)]
    assert server.ask(f"{BROWSE}/{key(1)}").status == 404 and server.ask(f"{BROWSE}/{key(2)}").status == 200


def test_pictures_are_the_samples_and_are_cached(server):
    answer = server.ask(f"{PICTURE}/{key(5)}/small.jpg")
    assert answer.headers["content-type"] == "image/jpeg" and "private" in answer.headers["cache-control"]
    with Image.open(io.BytesIO(answer.body)) as image:
        assert image.format == "JPEG" and image.size == (156, 130)
    assert server.ask(f"{PICTURE}/{key(5)}/small.jpg", If_None_Match=answer.headers["etag"]).status == 304
    assert server.ask(f"{PICTURE}/{key(6)}/small.jpg").body != answer.body
    for path in (f"{key(5)}/huge.jpg", f"{key(500)}/small.jpg", "..%2f..%2fx/small.jpg", "x/small.jpg"):
        assert server.ask(f"{PICTURE}/{path}").status == 404


def test_a_damaged_sample_is_told(start, settings):
    folder = tiny_variant(settings.home)
    place = located(settings)
    offset = int(np.load(folder / place.record.splits["train"].locate)["offset"][0])
    damaged(folder / place.record.splits["train"].shards[0].path, offset)
    made = records.read(folder)
    from tests.store.builder import _entry

    files = [_entry(folder, folder / each.path) for each in made.files]
    commit(folder, msgspec.structs.replace(made, files=files))
    server = start(settings)
    answer = server.ask(f"{PICTURE}/{key(0)}/small.jpg")
    assert answer.status == 422 and b"cannot be decoded" in answer.body
    assert server.ask(f"{PICTURE}/{key(1)}/small.jpg").status == server.ask(f"{BROWSE}/{key(0)}").status == 200


def test_images_that_cost_too_much_are_refused():
    buffer = io.BytesIO()
    Image.new("1", (20_000, 6_000)).save(buffer, "PNG")
    with pytest.raises(Refusal, match=r"too large|decoded"):
        pictures.made(buffer.getvalue(), {}, {}, 160, "k")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "RGB"])
def test_every_mode_becomes_a_jpeg(mode):
    image = Image.new(mode, (40, 20), 1 if mode in ("1", "P") else None)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    with Image.open(io.BytesIO(pictures.made(buffer.getvalue(), {}, {}, 160, "k"))) as found:
        assert found.mode == "RGB" and found.size == (160, 80)


def test_boxes_and_masks_are_drawn_where_they_are():
    buffer = io.BytesIO()
    Image.new("RGB", (100, 50), (255, 255, 255)).save(buffer, "PNG")
    boxes = FieldSpec(type="boxes", extension="json", format="xywh")
    masks = FieldSpec(type="masks", extension="masks.json")
    mask = np.zeros((1, 50, 100), np.uint8)
    mask[0, 30:40, 60:80] = 1
    beside = {
        "json": json.dumps({"boxes": [[10, 5, 20, 10]]}).encode(),
        "masks.json": json.dumps(rle.encode(mask)).encode(),
    }
    fields = {"boxes": boxes, "masks": masks}
    data = pictures.made(buffer.getvalue(), fields, beside, 100, "k")
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image).astype(int)
    changed = np.abs(pixels - 255).sum(2) > 120
    assert changed[5, 10:30].all() and changed[5:15, 10].all() and changed[32:38, 62:78].all()
    assert not changed[20:28].any() and not changed[:, 85:].any()
    wrong = marks.read(fields, {"json": b"{", "masks.json": b"[1]"}, (50, 100))
    assert len(wrong.wrong) == 2 and wrong.boxes is None and wrong.masks is None


def test_numbers_follow_what_is_served(start, settings):
    big_variant(settings.home)
    server = start(settings)
    before = json.loads(server.ask("/live.json").body)
    assert before["texts"]["sent"] == "0 B" and before["jobs"] == []
    entry = located(settings, "big").record.files[0]
    server.ask(f"/v1/blobs/{entry.sha256}", Datahub_Job="run-7")
    after = json.loads(server.ask("/live.json").body)
    assert after["texts"]["sent"] == "9.4 MB" or after["texts"]["sent"].startswith("9.")
    assert after["texts"]["sending"] != "0 B/s" and after["texts"]["hits"].endswith("%")


def test_jobs_are_shown_with_what_they_read(start, settings):
    tiny_variant(settings.home)
    server = start(settings)
    said = {"job": "run-7", "dataset": "tiny@1.0/published", "split": "train", "epoch": 3, "position": 10}
    assert server.ask("/v1/jobs", "POST", json.dumps(said).encode()).status == 200
    (row,) = json.loads(server.ask("/live.json").body)["jobs"]
    assert row[:4] == ["run-7", "tiny@1.0/published train", "epoch 3, 50%", "100%"] and "does not wait" in row[6]
    server.server.metrics.sent("tiny@1.0/published", 5, "run-7", 1000.0)
    (row,) = json.loads(server.ask("/live.json").body)["jobs"]
    assert "waits for blocks" in row[6] and row[5] == "1,000.0 s"
    text = server.ask("/").body.decode()
    assert '<th scope="row">run-7</th>' in text and "epoch 3, 50%" in text


@pytest.fixture
def guarded(start, home):
    return start(home, tokens=Tokens((READ,), (ADMIN,)))


def log_in(server, token, going="/"):
    body = urlencode({"token": token, "next": going}).encode()
    return server.ask("/login", "POST", body, Content_Type="application/x-www-form-urlencoded")


def test_pages_ask_for_the_token(guarded):
    answer = guarded.ask(f"{BROWSE}?class=1")
    assert (answer.status, answer.headers["location"]) == (303, f"/login?next={quote(BROWSE + '?class=1', safe='')}")
    assert guarded.ask("/").status == 303
    for path in ("/live.json", f"{PICTURE}/{key(0)}/small.jpg", "/metrics", "/v1/datasets"):
        assert guarded.ask(path).status == 401
    for path in ("/login", "/static/pages.css", "/static/live.js"):
        assert guarded.ask(path).status == 200


def test_logging_in_opens_reading_and_nothing_else(guarded):
    assert (
        log_in(guarded, "x" * 20).status
        == log_in(guarded, "").status
        == log_in(guarded, "é\udc80".encode("utf-8", "replace")).status
        == 401
    )
    for token in (READ, ADMIN):
        answer = log_in(guarded, token, f"{BROWSE}?class=1")
        assert (answer.status, answer.headers["location"]) == (303, f"{BROWSE}?class=1")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and token not in cookie
        shown = cookie.split(";")[0]
        assert guarded.ask("/", Cookie=shown).status == guarded.ask("/live.json", Cookie=shown).status == 200
        assert b"Log out" in guarded.ask("/", Cookie=shown).body
        said = json.dumps({"ref": "tiny@1.0/published"}).encode()
        assert guarded.ask("/v1/cache/pin", "POST", said, Cookie=shown).status == 401
        assert guarded.ask("/v1/jobs", "POST", b"{}", Cookie=shown).status == 401
    out = guarded.ask("/logout", "POST")
    assert out.status == 303 and "Max-Age=0" in out.headers["set-cookie"]


def test_cookies_end_and_cannot_be_made(guarded):
    tokens, now = Tokens((READ,)), time.time()
    good = session.issued(READ, now)
    assert session.opened(tokens, good, now) and session.opened(tokens, good, now + session.LIFE - 2)
    assert not session.opened(tokens, good, now + session.LIFE + 2)
    assert not session.opened(Tokens(("b" * 20,)), good, now)
    until, signature = good.split(".")
    for bad in ("", READ, f"{int(until) + 1}.{signature}", f"{until}.{'0' * 64}", f"{until}.", "é.é", "9" * 5000):
        assert not session.opened(tokens, bad, now)
        assert guarded.ask("/", Cookie=f"{session.COOKIE}={quote(bad)}").status == 303


@pytest.mark.parametrize(
    "going", ["//evil.example", "https://evil.example", "/\\evil", "\\", "", "/a\r\nX: y", "/\t/x", "x"]
)
def test_nobody_is_sent_elsewhere(guarded, going):
    assert log_in(guarded, READ, going).headers["location"] == "/"
