"""Downloads and weights through a cache server: what they are asked for with, and who never sees the token."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from datahub.acquire import plan, run
from datahub.acquire.policy import RetryPolicy
from datahub.acquire.weights import fetch_weights
from datahub.core.errors import TokenRefused
from datahub.core.refs import Ref
from datahub.core.settings import Settings
from datahub.registry import catalog
from datahub.serve.config import Tokens
from datahub.wire.paths import FILES, VERSION
from tests.acquire.server import Behaviour, serving
from tests.serve.test_ondemand import MNIST, downloaded

DATA = b"weights" * 1000
NAME = f"net-{hashlib.sha256(DATA).hexdigest()[:8]}.pth"
PUBLISHED = f"https://gone.invalid/{NAME}"
TOKEN = "a-token-that-reads-0123"
FAST = RetryPolicy(attempts=2, base=0.01, cap=0.02)


@pytest.fixture
def origin():
    """Where the server gets weights from."""
    with serving(**{f"weights/{NAME}".replace(".", "__"): Behaviour(DATA)}) as found:
        yield found


@pytest.fixture
def through(start, settings, origin):
    """A server that fetches from the origin, and asks for a token."""
    settings.home.mkdir(exist_ok=True)
    return start(replace(settings, from_=origin.url), tokens=Tokens((TOKEN,)), allow_fetch=True)


def shown(origin):
    return [headers["Authorization"] for _, headers in origin.requests if "Authorization" in headers]


@pytest.mark.parametrize("how", ["source", "from_"])
def test_weights_come_through_a_server_that_was_named(through, origin, elsewhere, tmp_path, monkeypatch, how):
    monkeypatch.setenv("DATAHUB_TOKEN", TOKEN)
    named = {how: through.url if how == "source" else f"{through.url}{FILES}/"}
    found = fetch_weights(PUBLISHED, replace(elsewhere, **named), policy=FAST)
    assert found.path == elsewhere.downloads / "weights" / NAME and found.path.read_bytes() == DATA
    asked = len(origin.requests)
    assert asked and not shown(origin)
    other = Settings(home=tmp_path / "other", **named)
    assert fetch_weights(PUBLISHED, other, policy=FAST).path.read_bytes() == DATA
    assert len(origin.requests) == asked  # the server kept them


def test_published_files_come_through_it(start, settings, elsewhere, shared_data, monkeypatch):
    monkeypatch.setenv("DATAHUB_TOKEN", TOKEN)
    path = downloaded(settings, shared_data)
    server = start(settings, tokens=Tokens((TOKEN,)))
    client = replace(elsewhere, source=f"datahub+{server.url}")
    whole = plan(catalog(client).find(Ref("mnist")), client)
    item = next(each for each in whole.items if each.file.filename == MNIST)
    found = run(replace(whole, items=(item,)), client, policy=FAST)[0]
    assert found.path != path and found.path.read_bytes() == path.read_bytes()


def test_without_the_right_token(through, origin, elsewhere, monkeypatch):
    """``--from`` says so; with DATAHUB_SOURCE mirrors are left, and are shown nothing."""
    from_ = replace(elsewhere, from_=f"{through.url}{FILES}")
    with pytest.raises(TokenRefused, match="wants a token"):
        fetch_weights(PUBLISHED, from_, policy=FAST)
    monkeypatch.setenv("DATAHUB_TOKEN", "another")
    with pytest.raises(TokenRefused, match="refuses the token"):
        fetch_weights(PUBLISHED, from_, policy=FAST)
    notes = []
    client = replace(elsewhere, source=through.url)
    found = fetch_weights(f"{origin.url}/weights/{NAME}", client, policy=FAST, listener=notes.append)
    assert found.path.read_bytes() == DATA and not shown(origin)
    assert any("refuses the token" in getattr(note, "message", "") for note in notes)


def test_what_a_server_has_not_comes_from_mirrors(start, settings, origin, elsewhere, monkeypatch):
    monkeypatch.setenv("DATAHUB_TOKEN", TOKEN)
    settings.home.mkdir(exist_ok=True)
    server = start(settings, tokens=Tokens((TOKEN,)))
    for source in (server.url, f"{server.url},http://127.0.0.1:9", "http://127.0.0.1:9"):
        client = replace(elsewhere, source=source, home=elsewhere.home / str(len(source)))
        found = fetch_weights(f"{origin.url}/weights/{NAME}", client, policy=FAST)
        assert found.path.read_bytes() == DATA and not shown(origin)


@pytest.mark.parametrize("how", ["source", "from_", "mirror"])
def test_a_folder_on_the_web_is_shown_no_token(elsewhere, monkeypatch, how):
    """Nor does a mirror that says it is a cache server, if nobody named it."""
    monkeypatch.setenv("DATAHUB_TOKEN", TOKEN)
    says = Behaviour(statuses=[404] * 9, headers={VERSION: "1"} if how == "mirror" else {})
    paths = {"v1": says, f"v1/files/weights/{NAME}".replace(".", "__"): Behaviour(DATA)}
    with serving(**paths) as web:
        named = {"source": {"source": web.url}, "from_": {"from_": f"{web.url}{FILES}"}, "mirror": {}}[how]
        found = fetch_weights(f"{web.url}{FILES}/weights/{NAME}", replace(elsewhere, **named), policy=FAST)
        assert found.path.read_bytes() == DATA
        assert web.requests and not shown(web)


def test_the_token_follows_no_redirect(elsewhere, monkeypatch):
    monkeypatch.setenv("DATAHUB_TOKEN", TOKEN)
    with serving(x=Behaviour(DATA)) as other:
        moved = Behaviour(redirect=f"{other.url}/x")
        says = Behaviour(statuses=[404] * 9, headers={VERSION: "1"})
        with serving(**{"v1": says, f"v1/files/weights/{NAME}".replace(".", "__"): moved}) as server:
            named = replace(elsewhere, from_=f"{server.url}{FILES}")
            assert fetch_weights(PUBLISHED, named, policy=FAST).path.read_bytes() == DATA
            assert shown(server) and other.requests and not shown(other)


def test_a_server_does_not_ask_itself(start, settings, origin, monkeypatch):
    """Its environment may name it, as that of every job on its machine."""
    settings.home.mkdir(exist_ok=True)
    monkeypatch.setattr("datahub.serve.downloads.WEIGHTS_AT", f"{origin.url}/weights")
    with serving(v1=Behaviour(statuses=[404] * 9, headers={VERSION: "1"})) as itself:
        server = start(replace(settings, source=itself.url), allow_fetch=True)
        assert server.ask(f"{FILES}/weights/{NAME}").body == DATA
        assert not itself.requests
