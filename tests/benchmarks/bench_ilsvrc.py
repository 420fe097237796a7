"""ImageNet's layout to ``published`` shards, one worker, beside cp + openssl and beside webdataset's ShardWriter.

    python tests/benchmarks/bench_ilsvrc.py --images DIR [--count 5000] [--classes 100] [--runs 5]

Archives of ``count`` JPEGs in ``classes`` class tars are built first; all sides read them from a warm page cache.
``copy``: ``cp`` of the train archive, then ``openssl dgst -sha256`` of the copy. ``shardwriter``: a script that walks
the same archives with tarfile and writes shards with webdataset's ShardWriter. ``datahub``: `datahub pack ilsvrc:DIR`
with -j 1 in a process of its own, start-up included; its peak memory is the kernel's word (wait4).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks._ilsvrc import TRAIN, build

SHARDWRITER = """
import sys, tarfile, webdataset
from pathlib import Path
out = webdataset.ShardWriter(sys.argv[2] + "/train-%06d.tar", maxsize=256e6, verbose=0)
with tarfile.open(sys.argv[1]) as outer, out:
    labels = {}
    for member in outer:
        wnid = member.name.partition(".")[0]
        with tarfile.open(fileobj=outer.extractfile(member)) as inner:
            for image in inner:
                label = labels.setdefault(wnid, len(labels))
                key = image.name.rpartition(".")[0]
                out.write({"__key__": key, "jpg": inner.extractfile(image).read(), "cls": str(label)})
"""


def timed(command: list[str], **environment: str) -> tuple[float, int]:
    """(seconds, peak RSS in KiB) of a command that must succeed."""
    began = time.perf_counter()
    child = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{command[:4]} ended with {child.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--stats", default="none")
    options = parser.parse_args()
    images = sorted(options.images.glob("*.[jJ][pP]*[gG]"))
    with tempfile.TemporaryDirectory() as base:
        raw = build(Path(base) / "raw", images, classes=options.classes, samples=options.count)
        train = raw / TRAIN
        os.sync()
        found: dict[str, list[float]] = {"datahub": [], "copy": [], "shardwriter": []}
        for run in range(options.runs + 1):
            for side, times in found.items():
                out = Path(tempfile.mkdtemp(dir=base))
                rss = 0
                if side == "copy":
                    seconds = timed(["cp", str(train), str(out / "copy.tar")])[0]
                    seconds += timed(["openssl", "dgst", "-sha256", str(out / "copy.tar")])[0]
                elif side == "shardwriter":
                    seconds, rss = timed([sys.executable, "-W", "ignore", "-c", SHARDWRITER, str(train), str(out)])
                else:
                    pack = ["pack", "-q", f"ilsvrc:{raw}", "bench@1", "-j", "1", "--stats", options.stats]
                    seconds, rss = timed([sys.executable, "-m", "datahub", *pack], DATAHUB_HOME=str(out))
                shutil.rmtree(out)
                os.sync()
                if run:
                    times.append(seconds)
                    print(json.dumps({"side": side, "seconds": round(seconds, 3), "peak_mib": rss // 1024}), flush=True)
        ours, copy, writer = (statistics.median(found[side]) for side in found)
        facts = {"bytes": train.stat().st_size, "datahub_s": round(ours, 3), "copy_s": round(copy, 3)}
        facts |= {"shardwriter_s": round(writer, 3), "of_copy": round(copy / ours, 2)}
        print(json.dumps({**facts, "of_shardwriter": round(writer / ours, 2)}))


if __name__ == "__main__":
    main()
