from __future__ import annotations

import subprocess
import sys


def test_a_loader_on_the_cpu_does_without_torchvision():
    """It brings Triton, SymPy and half of torch along: 170 MB a process."""
    heavy = "torchvision triton sympy pandas scipy"
    code = f"import sys, datahub; datahub.StreamingLoader; print(*sys.modules.keys() & set({heavy!r}.split()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []
