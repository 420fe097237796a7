"""What a server makes of an index that is none: its bytes are those that some origin gave."""

from __future__ import annotations

import subprocess
import sys

DAMAGED = """
import io, random
from types import SimpleNamespace as Simple

import pyarrow as pa
import pyarrow.parquet as pq

from datahub.serve import filters

column = [number % 7 for number in range(2000)]
table = pa.table({"label": column, "key": [f"k{each}" for each in column], "width": [each / 3 for each in column]})
written = io.BytesIO()
pq.write_table(table, written)
whole = written.getvalue()
head = int.from_bytes(whole[-8:-4], "little")
variant = Simple(record=Simple(classes=[], words=[]))


def meets(data, where):
    return filters._meets(filters._Blob(Simple(size=len(data)), lambda start, end: data[start:end]), variant, where)


assert meets(whole, "label == 1").sum() == column.count(1)
assert meets(whole, "key == 'k1' and width < 1").sum() == column.count(1)
draw, unread = random.Random(1), 0
for number in range(1000):
    data = bytearray(whole)
    for _ in range(draw.randrange(1, 6)):
        data[-8 - draw.randrange(1, head)] ^= 1 << draw.randrange(8)  # in what says where the columns are
    if number % 5 == 0:
        data = data[: draw.randrange(len(data))]
    unread += meets(bytes(data), draw.choice(["label == 1", "key == 'k1'", "width < 0.5"])) is None
print(unread)
"""


def test_a_damaged_index_ends_no_server():
    """In a process of its own: what is wrong in one may end it, with no exception to catch."""
    done = subprocess.run([sys.executable, "-c", DAMAGED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 100 < int(done.stdout) < 1000
