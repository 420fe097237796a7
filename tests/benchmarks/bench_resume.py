"""Time to the first batch, from the start of an epoch and from 90 % of it, beside Mosaic, LitData and webdataset.

    python tests/benchmarks/bench_resume.py [--samples 1281167] [--rounds 5] [--peer-python PYTHON] [--work DIR]

Packs ``samples`` tiny PNGs; webdataset reads our shards, Mosaic and LitData get copies in formats of their own. Every
first batch is taken in a fresh process, all by turns, timed from before the constructor, imports left out. They resume
by a state: ours and LitData's by ``load_state_dict`` of the loader, Mosaic's of the dataset. webdataset has none:
it passes over 90 % of the samples, as its users do, and because that takes minutes it is run once. All shuffle, with
two workers. Prints one JSON line for each of them, then the ratios of the medians.
``--peer-python``: an interpreter that has Mosaic and LitData, where this one has not. ``--work`` keeps what is packed.
"""

from __future__ import annotations

import argparse
import importlib
import io
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
REF, DISTINCT, CLASSES = "resumed@1", 1000, 1000


def tiny(count: int = DISTINCT) -> list[bytes]:
    """PNGs of 8 x 8 pixels."""
    from PIL import Image

    def png(number: int) -> bytes:
        file = io.BytesIO()
        Image.frombytes("L", (8, 8), number.to_bytes(4, "little") * 16).save(file, "PNG")
        return file.getvalue()

    return [png(number) for number in range(count)]


# -- ours -------------------------------------------------------------------------------------------------------------


def pack_datahub(o: argparse.Namespace) -> None:
    import datahub
    from datahub.core.settings import Settings

    images = tiny()
    with datahub.Writer(REF, settings=Settings(home=Path(o.work, "home"))) as writer:
        for number in range(o.samples):
            writer.write(image=images[number % DISTINCT], label=number % CLASSES)


def datahub_loader(o: argparse.Namespace) -> Any:
    import datahub
    from datahub.core.settings import Settings

    settings = Settings(home=Path(o.work, "home"))
    return datahub.StreamingLoader(
        REF, batch_size=o.batch, shuffle=True, num_workers=o.workers, residency=o.residency, settings=settings
    )


def datahub_state(o: argparse.Namespace) -> Any:
    with datahub_loader(o) as loader:
        loader.skip(int(len(loader) * o.share))
        return loader.state_dict()


def datahub_batches(o: argparse.Namespace, state: Any) -> Iterator[Any]:
    loader = datahub_loader(o)
    if state is not None:
        loader.load_state_dict(state)
    return iter(loader)


# -- the peers --------------------------------------------------------------------------------------------------------


def pack_mosaic(o: argparse.Namespace) -> None:
    from streaming import MDSWriter

    images = tiny()
    with MDSWriter(out=str(Path(o.work, "mosaic")), columns={"image": "bytes", "label": "int"}) as writer:
        for number in range(o.samples):
            writer.write({"image": images[number % DISTINCT], "label": number % CLASSES})


def mosaic_state(o: argparse.Namespace) -> Any:
    """What `StreamingDataset.state_dict` gives after so many samples on one node."""
    nodes = {"num_canonical_nodes": 1, "initial_physical_nodes": 1}
    return {"epoch": 0, "sample_in_epoch": taken(o), "shuffle_seed": 9176, **nodes}


def mosaic_batches(o: argparse.Namespace, state: Any) -> Iterator[Any]:
    import torch
    from streaming import StreamingDataset

    folder = str(Path(o.work, "mosaic"))
    dataset = StreamingDataset(local=folder, shuffle=True, batch_size=o.batch, num_canonical_nodes=1)
    if state is not None:
        dataset.load_state_dict(state)
    return iter(torch.utils.data.DataLoader(dataset, batch_size=o.batch, num_workers=o.workers, collate_fn=columns))


def pack_litdata(o: argparse.Namespace) -> None:
    import litdata

    litdata.optimize(
        fn=lit_sample,
        inputs=list(range(o.samples)),
        output_dir=str(Path(o.work, "litdata")),
        chunk_bytes="64MB",
        num_workers=o.workers,
    )


IMAGES: list[bytes] = []


def lit_sample(number: int) -> dict[str, Any]:
    if not IMAGES:
        IMAGES.extend(tiny())
    return {"image": IMAGES[number % DISTINCT], "label": number % CLASSES}


def litdata_loader(o: argparse.Namespace) -> Any:
    import litdata

    dataset = litdata.StreamingDataset(str(Path(o.work, "litdata")), shuffle=True)
    return litdata.StreamingDataLoader(dataset, batch_size=o.batch, num_workers=o.workers, collate_fn=columns)


def litdata_state(o: argparse.Namespace) -> Any:
    """The state that the loader gives after two batches, moved to where it would be."""
    loader = litdata_loader(o)
    batches = iter(loader)
    for _ in range(2):
        next(batches)
    state = loader.state_dict()
    state["num_samples_yielded"] = taken(o)
    state["dataset"] |= {"num_samples_yielded": taken(o), "sample_in_epoch": taken(o)}
    return state


def litdata_batches(o: argparse.Namespace, state: Any) -> Iterator[Any]:
    loader = litdata_loader(o)
    if state is not None:
        loader.load_state_dict(state)
    return iter(loader)


def webdataset_batches(o: argparse.Namespace, state: Any) -> Iterator[Any]:
    import webdataset as wds

    shards = sorted(str(path) for path in Path(o.work, "home").rglob("*.tar"))
    dataset = wds.WebDataset(shards, shardshuffle=100, seed=0).shuffle(1000).to_tuple("png", "cls")
    loader = wds.WebLoader(dataset.batched(o.batch, collation_fn=columns), batch_size=None, num_workers=o.workers)
    return itertools.islice(iter(loader), state or 0, None)


def taken(o: argparse.Namespace) -> int:
    """Samples of whole batches before the place to resume at."""
    return int(o.samples * o.share) // o.batch * o.batch


def prepare(name: str) -> None:
    """What a training script has imported and done before it makes its loader."""
    import torch

    torch.zeros(1)
    if name == "datahub":
        import datahub

        assert datahub.StreamingLoader
    elif name == "mosaic":
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()
    else:
        importlib.import_module(name)


LOADERS = {
    "datahub": datahub_batches,
    "mosaic": mosaic_batches,
    "litdata": litdata_batches,
    "webdataset": webdataset_batches,
}
STATES = {
    "datahub": datahub_state,
    "mosaic": mosaic_state,
    "litdata": litdata_state,
    "webdataset": lambda o: taken(o) // o.batch,
}
PACKERS = {"datahub": pack_datahub, "mosaic": pack_mosaic, "litdata": pack_litdata}
FOLDERS = {"datahub": "home/datasets", "mosaic": "mosaic/index.json", "litdata": "litdata/index.json"}


def columns(samples: list[Any]) -> tuple[list[bytes], list[Any]]:
    if isinstance(samples[0], dict):
        return [each["image"] for each in samples], [each["label"] for each in samples]
    return [each[0] for each in samples], [each[1] for each in samples]


# -- measuring --------------------------------------------------------------------------------------------------------


def child(o: argparse.Namespace) -> None:
    """Pack for one loader, print its state, or print how long it takes to its first batch."""
    if o.child == "pack":
        PACKERS[o.name](o)
        return
    prepare(o.name)
    if o.child == "state":
        print(json.dumps(STATES[o.name](o)), flush=True)
        return
    state = json.loads(o.state)
    began = time.perf_counter()
    batch = next(LOADERS[o.name](o, state))
    spent = time.perf_counter() - began
    found = len(batch["label"] if isinstance(batch, dict) else batch[1])
    if found != o.batch:
        raise SystemExit(f"{o.name}: a batch of {found}, not {o.batch}")
    print(json.dumps(spent), flush=True)


def start(o: argparse.Namespace, name: str, kind: str, state: str = "null") -> str:
    python = o.peer_python if name in ("mosaic", "litdata") else sys.executable
    given = {key: getattr(o, key) for key in ("samples", "batch", "workers", "share", "work", "residency")}
    given |= {"child": kind, "name": name, "state": state}
    command = [python, __file__, *(f"--{key}={value}" for key, value in given.items())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    if ended.returncode:
        raise SystemExit(f"{name} failed:\n{ended.stderr[-3000:]}")
    return (ended.stdout.splitlines() or [""])[-1]


def compare(o: argparse.Namespace) -> None:
    names = o.loader or list(LOADERS)
    for name in names:
        if name in PACKERS and not Path(o.work, FOLDERS[name]).exists():
            start(o, name, "pack")
    states = {name: {"start": "null", f"{o.share:.0%}": start(o, name, "state")} for name in names}
    times: dict[tuple[str, str], list[float]] = {(name, place): [] for name in names for place in states[name]}
    for number in range(o.rounds):
        for (name, place), found in times.items():
            if name != "webdataset" or place == "start" or number == 0:
                found.append(float(start(o, name, "run", states[name][place])))
    for (name, place), found in times.items():
        facts = {"loader": name, "from": place, "samples": o.samples, "batch": o.batch}
        print(json.dumps({**facts, "first_batch_ms": [round(each * 1e3, 1) for each in found]}))
    for name in names:
        cold, resumed = (statistics.median(times[name, place]) for place in states[name])
        facts = {"cold_ms": round(cold * 1e3), "resumed_ms": round(resumed * 1e3), "ratio": round(resumed / cold, 2)}
        print(json.dumps({"figure": f"{name}: first batch, resumed against cold", **facts}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_281_167)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.9, help="where in the epoch to resume")
    parser.add_argument("--residency", default="stream", help="ours: stream reads and decodes, as of a large dataset")
    parser.add_argument("--loader", action="append", choices=list(LOADERS))
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--work", help="a folder to keep what is packed in")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--state", help=argparse.SUPPRESS)
    o = parser.parse_args()
    if o.child:
        child(o)
        return
    with tempfile.TemporaryDirectory() as folder:
        o.work = o.work or folder
        compare(o)


if __name__ == "__main__":
    main()
