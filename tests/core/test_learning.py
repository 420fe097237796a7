"""Types that several threads read first at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from msgspec import _utils

RACE = """
import sys, threading, time
from importlib import import_module
import msgspec
from msgspec import _utils

looked, slow = _utils._get_class_mro_and_typevar_mappings, []

def slowly(kind):
    slow.append(kind)
    time.sleep(0.002)
    found = looked(kind)
    time.sleep(0.002)
    return found

_utils._get_class_mro_and_typevar_mappings = slowly
module, name, learned = sys.argv[1:]
kind, text = getattr(import_module(module), name), "{}"
if learned == "no":
    kind = msgspec.defstruct("Other", [("a", msgspec.defstruct("Inner", [("b", int)])), ("c", list[str])])
    text = '{"a": {"b": 1}, "c": ["x"]}'
begun = len(slow)
barrier = threading.Barrier(8)

def read(number):
    barrier.wait()
    time.sleep(0.0013 * number)
    for _ in range(20):
        try:
            msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError:
            pass

threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(len(slow) - begun)
"""
KINDS = [
    ("datahub.store.record", "Record"),
    ("datahub.wire.messages", "JobAsked"),
    ("datahub.wire.messages", "Status"),
    ("datahub.wire.messages", "Failure"),
    ("datahub.acquire.receipts", "Receipt"),
    ("datahub.acquire.partial", "State"),
    ("datahub.registry.schema", "Manifest"),
    ("datahub.pack.shard", "Done"),
]


def raced(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RACE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


needs_inside = pytest.mark.skipif(
    not hasattr(_utils, "_get_class_mro_and_typevar_mappings"), reason="another msgspec looks at types otherwise"
)


@needs_inside
@pytest.mark.parametrize(("module", "name"), KINDS)
def test_many_threads_read_a_type_first(module, name):
    done = raced(module, name, "yes")
    assert done.returncode == 0 and int(done.stdout) == 0, done.stderr  # nothing was left to look at


@needs_inside
def test_the_race_is_one():
    """A type that nobody looked at before is looked at then; where it may crash msgspec, the tests above can fail."""
    done = raced("datahub.wire.messages", "Status", "no")
    assert done.returncode < 0 or int(done.stdout) > 0, done.stderr
