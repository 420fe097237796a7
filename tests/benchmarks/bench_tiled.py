"""Making variants, beside the tools people would use: jpegtran in a loop, img2dataset's resizer, Pillow.

    python tests/benchmarks/bench_tiled.py --images DIR [--runs 5] [--img2dataset PYTHON]

Every side runs in a process of its own that is pinned to one core, start-up not counted. ``tiled`` is held against
``jpegtran -copy all -optimize -restart 8B`` in a shell's loop over the same files; ``max256`` against img2dataset's
resizer at the same quality (imported where the given Python has it, else its OpenCV calls are made here) and Pillow.
Then `datahub pack` of archives in ImageNet's layout with one and with two workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks._ilsvrc import build

ROOT = Path(__file__).resolve().parents[2]

LOOP = 'for f in "$1"/*; do jpegtran -copy all -optimize -restart 8B -outfile /dev/shm/bench-tiled.jpg "$f"; done'


def jpegtran(folder: Path) -> tuple[float, int]:
    files = list(folder.iterdir())
    began = time.perf_counter()
    subprocess.run(["sh", "-c", LOOP, "sh", str(folder)], check=True)
    return len(files) / (time.perf_counter() - began), 0


def tiled(folder: Path) -> tuple[float, int]:
    from datahub.pack.recipes.tiled import Tiled

    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    recipe = Tiled()
    recipe.transform(files[:3])
    began = time.perf_counter()
    made = recipe.transform(files)
    seconds = time.perf_counter() - began
    assert not any(each.damage or each.kept for each in made)
    return len(files) / seconds, sum(len(each.data) for each in made)


def max256(folder: Path) -> tuple[float, int]:
    import cv2

    from datahub.pack.recipes.smaller import Smaller

    cv2.setNumThreads(1)
    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    recipe = Smaller(256)
    recipe.transform(files[:3])
    began = time.perf_counter()
    made = recipe.transform(files)
    return len(files) / (time.perf_counter() - began), sum(len(each.data) for each in made)


IMG2DATASET = """
import io, sys, time
from pathlib import Path
import cv2
cv2.setNumThreads(1)
try:
    from img2dataset.resizer import Resizer
    resizer = Resizer(256, "keep_ratio", True, encode_quality=90, encode_format="jpg", skip_reencode=True)
    how, one = "img2dataset", lambda data: resizer(io.BytesIO(data))[0]
except ImportError:
    import numpy as np
    def one(data):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        height, width = image.shape[:2]
        if min(height, width) > 256:
            scale = 256 / min(height, width)
            size = round(width * scale), round(height * scale)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", image, [int(cv2.IMWRITE_JPEG_QUALITY), 90])[1].tobytes()
    how = "img2dataset's OpenCV calls"
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
[one(data) for data in files[:3]]
began = time.perf_counter()
made = [one(data) for data in files]
print(len(files) / (time.perf_counter() - began), sum(map(len, made)), how)
"""

PILLOW = """
import io, sys, time
from pathlib import Path
from PIL import Image
def one(data):
    image = Image.open(io.BytesIO(data))
    scale = 256 / min(image.size)
    if scale < 1:
        image = image.resize([round(each * scale) for each in image.size], Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, subsampling=2)
    return out.getvalue()
files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
[one(data) for data in files[:3]]
began = time.perf_counter()
made = [one(data) for data in files]
print(len(files) / (time.perf_counter() - began), sum(map(len, made)), "Pillow")
"""

SIDES = {"jpegtran": jpegtran, "tiled": tiled, "max256": max256}


def pinned(command: list[str]) -> list[str]:
    done = subprocess.run(["taskset", "-c", "0", *command], check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.split(maxsplit=2)


def workers(base: Path, images: list[Path], variant: str, samples: int) -> None:
    """Wall time of `datahub pack` with one and two workers."""
    raw = base / f"raw-{samples}"
    if not raw.exists():
        build(raw, images, classes=20, samples=samples)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for run in range(3):
        for jobs, times in seconds.items():
            home = base / f"home-{variant}-{jobs}-{run}"
            command = ["pack", "-q", f"ilsvrc:{raw}", f"bench@1/{variant}", "-j", str(jobs), "--stats", "none"]
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "datahub", *command],
                check=True, cwd=ROOT, env={**os.environ, "DATAHUB_HOME": str(home)}, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            times.append(time.perf_counter() - began)
    one, two = (statistics.median(times) for times in seconds.values())
    facts = {"variant": variant, "images": samples, "one_s": round(one, 2), "two_s": round(two, 2)}
    print(json.dumps({**facts, "speedup": round(one / two, 2)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1200)
    parser.add_argument("--img2dataset", default=sys.executable, help="a Python that has it")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(*SIDES[options.side](options.images))
        return
    images = sorted(options.images.glob("*.[jJ][pP]*[gG]"))
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "files").mkdir()
        for path in images:
            (base / "files" / path.name).symlink_to(path.resolve())
        size = sum(path.stat().st_size for path in images)
        ours = [sys.executable, __file__, "--images", str(base / "files"), "--side"]
        commands = {side: [*ours, side] for side in SIDES}
        commands["peer"] = [options.img2dataset, "-c", IMG2DATASET, str(base / "files")]
        commands["pillow"] = [sys.executable, "-c", PILLOW, str(base / "files")]
        found: dict[str, list[float]] = {side: [] for side in commands}
        for _ in range(options.runs):
            for side, command in commands.items():
                rate, made, *how = pinned(command)
                found[side].append(float(rate))
                facts = {"side": how[0].strip() if how else side, "images_s": round(float(rate), 1), "bytes": int(made)}
                print(json.dumps({**facts, "of_input": round(int(made) / size, 4)}), flush=True)
        rate = {side: statistics.median(rates) for side, rates in found.items()}
        ratios = {
            "tiled_of_jpegtran": rate["tiled"] / rate["jpegtran"],
            "max256_of_peer": rate["max256"] / rate["peer"],
            "max256_of_pillow": rate["max256"] / rate["pillow"],
        }
        print(json.dumps({name: round(ratio, 2) for name, ratio in ratios.items()}), flush=True)
        for variant in ("tiled", "max256"):
            workers(base, images, variant, options.samples)


if __name__ == "__main__":
    main()
