"""A server that starts: what it does without, and what it answers before it knows all of its store."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

from datahub.serve.library import Library
from tests.serve.conftest import content, digest_of, located

HEAVY = "numpy PIL jinja2 fsspec urllib3 pyarrow torch"
DEADLINE = 60.0


def test_a_server_starts_without_what_only_pages_and_origins_need():
    """Each of them costs a killed server a tenth of a second and more before it answers again."""
    code = f"""
import sys
import datahub.cli.serve, datahub.serve.running, datahub.serve.serving
print(*sys.modules.keys() & set({HEAVY!r}.split()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE)
    assert done.stdout.split() == []


def test_it_answers_while_its_store_is_still_read(start, home, monkeypatch):
    """It is ready at once; who asks for a digest waits for the store, and for a dataset only for that."""
    going, entered = threading.Event(), threading.Event()
    folders = Library._folders

    def slow(self):
        entered.set()
        assert going.wait(DEADLINE)
        yield from folders(self)

    monkeypatch.setattr(Library, "_folders", slow)
    server = start(home)
    try:
        assert entered.wait(DEADLINE)
        assert server.ask("/readyz").status == 200
        record = server.ask("/v1/datasets/big/1.0/published/dataset.json")
        assert record.status == 200 and json.loads(record.body)["variant"] == "published"
        found = []
        tiny = located(home).record.files[0].sha256
        asking = threading.Thread(target=lambda: found.append(server.ask(f"/v1/blobs/{tiny}")))
        asking.start()
        assert server.ask("/healthz").status == 200 and not found
    finally:
        going.set()
    asking.join(DEADLINE)
    assert found[0].status == 200
    assert server.ask(f"/v1/blobs/{digest_of(home)}").body == content()
