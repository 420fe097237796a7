from __future__ import annotations

import subprocess
import sys


def test_importing_the_room_is_light():
    code = "import sys, datahub.order; assert 'numpy' not in sys.modules; datahub.order.Permutation(3); import numpy"
    subprocess.run([sys.executable, "-c", code], check=True)
