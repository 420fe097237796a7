"""The index at ImageNet's size: built from finished shards' rows, and opened to find one sample.

    python tests/benchmarks/bench_locate.py [--rows 1281167] [--runs 5]

``build`` joins 600 shards' rows into the locate rows and the Parquet index, as the commit does (duplicates and sizes
are counted, too). ``open`` is a fresh process that has imported datahub and numpy: seconds and memory beyond that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

OPEN = """
import json, random, sys, time
import numpy, datahub.core.settings, datahub.store.dataset, datahub.store.locate
from pathlib import Path
def rss():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
from datahub.core.settings import Settings
before, began = rss(), time.perf_counter()
dataset = datahub.store.dataset.open_dataset("big@1", Settings(home=Path(sys.argv[1])))
row = dataset["train"].locate[random.randrange(len(dataset["train"]))]
where = int(row["shard"]), int(row["offset"]), int(row["size"])
print(json.dumps({"seconds": time.perf_counter() - began, "mib": (rss() - before) / 2**20}))
"""


def build(home: Path, rows: int) -> tuple[float, int]:
    """(seconds of joining and writing, bytes written) for ``rows`` rows in 600 shards."""
    from datahub.core.settings import Settings
    from datahub.pack import commit
    from datahub.pack.ground import put
    from datahub.pack.plan import plan
    from datahub.pack.run import tasks
    from datahub.pack.shard import Done
    from datahub.pack.stats import Sums
    from datahub.store import index
    from tests.pack.fakes import Pictures

    source = Pictures({"train": rows})
    made = _manifest(rows)
    settings = Settings(home=home)
    planned = plan(source, manifest=made, variant="published", settings=settings, shard_bytes=rows * 1500 // 600)
    done = []
    for task in tasks(planned):
        count = task.last - task.first
        numbers = range(task.first, task.last)
        digests = [hashlib.sha256(b"%d" % i).hexdigest() for i in numbers]
        columns = {
            "key": [f"train-{i:09d}" for i in numbers],
            "source": [f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in numbers],
            "shard": [task.number] * count,
            "image_offset": [512 + 110_592 * i for i in range(count)],
            "image_size": [100_000 + i % 9000 for i in numbers],
            "label_offset": [110_080 + 110_592 * i for i in range(count)],
            "label_size": [3] * count,
            "label": [i % 1000 for i in numbers],
            "width": [500] * count,
            "height": [375 - i % 40 for i in numbers],
            "format": ["jpeg"] * count,
            "sha256": digests,
        }
        put(task.ground, f"work/{task.name}.rows", index.encode(columns))
        done.append(
            Done(
                plan=task.plan, name=task.name, first=task.first, last=task.last, samples=count, bytes=1,
                sha256=digests[0], blocks="00" * 32, offsets=(8, digests[0], "00" * 32), histogram=[1] * 1000,
                stats=Sums().to_dict(), shape=None, kept={}, damaged=[], gaps=[],
            )
        )  # fmt: skip
    began = time.perf_counter()
    record = commit.write(planned, {"train": done})
    seconds = time.perf_counter() - began
    (planned.datasets / "big/1").mkdir(parents=True)
    (planned.building / "out").rename(planned.datasets / "big/1/published")
    return seconds, sum(each.bytes for each in record.files if each.role in ("locate", "index"))


def _manifest(rows: int):  # type: ignore[no-untyped-def]
    from datahub.registry.schema import Layout, Licence, Manifest, Tried

    return Manifest(
        name="big", version="1", title="Big", licence=Licence(), task="image-classification", digest="sha256:0",
        splits={"train": rows}, classes=[f"n{i:08d}" for i in range(1000)], tried=Tried(how="never"),
        layout=Layout(kind="idx"),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "home"
        seconds, size = build(home, options.rows)
        facts = {"side": "build", "rows": options.rows, "seconds": round(seconds, 2), "bytes": size}
        print(json.dumps({**facts, "rows_s": round(options.rows / seconds)}), flush=True)
        found = []
        for _ in range(options.runs):
            done = subprocess.run(
                [sys.executable, "-c", OPEN, str(home)], cwd=ROOT, check=True, capture_output=True, text=True
            )
            found.append(json.loads(done.stdout))
        median = {key: round(statistics.median(each[key] for each in found), 4) for key in ("seconds", "mib")}
        print(json.dumps({"side": "open", **median}))


if __name__ == "__main__":
    main()
