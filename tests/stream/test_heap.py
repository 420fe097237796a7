"""Freed memory stays with the process: seen in its page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from datahub.stream.heap import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def faults(batches):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(batches):
        batch = [bytes([1]) * 110_000 for _ in range(64)]
        del batch
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(3)
print(faults(20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's thresholds adapt")
def test_batches_of_bytes_are_not_faulted_in_anew():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "default")
    )
    assert kept < 2000 < given_back
