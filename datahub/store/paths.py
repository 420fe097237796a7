"""Where things are in a store: names of folders and files, in one place."""

from __future__ import annotations

from pathlib import Path

BUILDING = ".building"
DERIVED = "derived"
RESIDENT = "resident"
"""Decoded pixels, in the folder that a split's fingerprint names."""


def variant_dir(datasets: Path, name: str, version: str, variant: str) -> Path:
    return datasets / name / version / variant


def building_dir(datasets: Path, plan_digest: str) -> Path:
    """Where a variant is packed; ``plan_digest`` is ``sha256:<hex>`` or the bare hex."""
    return datasets / BUILDING / plan_digest.removeprefix("sha256:")


def pack_lock(locks: Path, plan_digest: str) -> Path:
    """The lock a packer holds while it builds `building_dir` of the same plan."""
    return locks / f"pack-{plan_digest.removeprefix('sha256:')}.lock"


def part_lock(locks: Path, plan_digest: str, part: str) -> Path:
    """The lock of a packer that builds part ``3/64`` of the plan."""
    return locks / f"pack-{plan_digest.removeprefix('sha256:')}.{part.replace('/', 'of')}.lock"


def pack_locks(locks: Path, plan_digest: str) -> list[Path]:
    """All locks there are of packers of a plan."""
    return sorted(locks.glob(f"pack-{plan_digest.removeprefix('sha256:')}*.lock"))


def derived_dir(home: Path, fingerprint: str) -> Path:
    """What this machine makes of a split on demand and may lose."""
    return home / DERIVED / fingerprint.removeprefix("sha256:")


def shard_name(dataset: str, split: str, number: int) -> str:
    return f"{dataset}-{split}-{number:06d}.tar"


def offsets_name(shard: str) -> str:
    """Energon's name for a shard's sample offsets."""
    return f"{shard}.idx"


def locate_name(split: str) -> str:
    return f"locate-{split}.npy"


def index_name(split: str) -> str:
    return f"index-{split}.parquet"


def wids_name(split: str) -> str:
    return f"wids-{split}.json"


def key_of(split: str, index: int) -> str:
    """The key of a sample: ``train-000000042``."""
    return f"{split}-{index:09d}"
