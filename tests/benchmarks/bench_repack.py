"""Packing encoded JPEGs as they are, beside ``tar cf FILE`` of the same files; an fsync on both sides.

    python tests/benchmarks/bench_repack.py --images DIR [--count 5000] [--runs 5]

The images of DIR are copied to ``count`` files first, which both sides then read from a warm page cache. Ours, one
process, computes every digest (image, file, block, MD5), the index and the record as well.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datahub.core.settings import Settings
from datahub.pack.plan import plan
from datahub.pack.run import How, run
from datahub.pack.source import Chunk
from datahub.registry.schema import Layout, Licence, Manifest, Tried
from datahub.store.record import FieldSpec


@dataclass(frozen=True)
class Files:
    """JPEG files of one folder as a source; labels are the file numbers modulo 1000."""

    paths: tuple[str, ...]
    sizes: tuple[int, ...]
    random_access = True

    def splits(self) -> Mapping[str, int]:
        return {"train": len(self.paths)}

    def classes(self) -> None:
        return None

    def fields(self) -> Mapping[str, FieldSpec]:
        return {"image": FieldSpec(type="image", extension="jpeg"), "label": FieldSpec(type="label", extension="cls")}

    def estimate(self, split: str) -> Any:
        return np.array(self.sizes, np.int64)

    def read(self, split: str, indices: Any) -> Chunk:
        paths = [self.paths[int(i)] for i in indices]
        return Chunk(images=[Path(p).read_bytes() for p in paths], labels=np.asarray(indices) % 1000, sources=paths)

    def facts(self) -> dict[str, Any]:
        return {"files": len(self.paths)}


def ours(files: list[str], work: Path) -> None:
    manifest = Manifest(
        name="jpegs", version="1", title="JPEGs", licence=Licence(), task="image-classification", digest="sha256:0",
        splits={"train": len(files)}, classes=[str(i) for i in range(1000)], tried=Tried(how="never"),
        layout=Layout(kind="idx"),
    )  # fmt: skip
    settings = Settings(home=work)
    source = Files(tuple(files), tuple(Path(path).stat().st_size for path in files))
    planned = plan(source, manifest=manifest, variant="published", settings=settings, stats="none")
    run(planned, source, settings=settings, how=How(jobs=1))


def tar(files: list[str], work: Path) -> None:
    folder = Path(files[0]).parent
    subprocess.run(["tar", "cf", str(work / "out.tar"), "-C", str(folder.parent), folder.name], check=True)
    descriptor = os.open(work / "out.tar", os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    found = sorted(options.images.glob("*.[jJ][pP]*[gG]"))
    with tempfile.TemporaryDirectory() as base:
        (Path(base) / "files").mkdir()
        files = [f"{base}/files/{i:06d}.jpg" for i in range(options.count)]
        for i, path in enumerate(files):
            shutil.copy(found[i % len(found)], path)
        size = sum(Path(path).stat().st_size for path in files)
        os.sync()
        times: dict[str, list[float]] = {"datahub": [], "tar": []}
        for _ in range(options.runs + 1):
            for name, side in (("datahub", ours), ("tar", tar)):
                work = Path(tempfile.mkdtemp(dir=base))
                began = time.perf_counter()
                side(files, work)
                times[name].append(time.perf_counter() - began)
                shutil.rmtree(work)
                os.sync()
                print(json.dumps({"side": name, "seconds": round(times[name][-1], 3)}), flush=True)
    a, b = (statistics.median(each[1:]) for each in times.values())
    print(json.dumps({"bytes": size, "ours_s": round(a, 3), "tar_s": round(b, 3), "speed_ratio": round(b / a, 2)}))


if __name__ == "__main__":
    main()
