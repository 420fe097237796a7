"""Small published files, made here: what tests of layouts read in place of real ones."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from datahub.acquire import Verified
from datahub.registry.schema import File

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
PACK = {"": bytes, ".gz": lambda data: gzip.compress(data, 1), ".xz": lzma.compress, ".bz2": bz2.compress}


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(">2xBB", CODES[array.dtype.name], array.ndim)
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return header + shape + array.astype(array.dtype.newbyteorder(">")).tobytes()


def published(folder: Path, filename: str, data: bytes, role: str = "file") -> Verified:
    path = folder / filename
    path.write_bytes(data)
    return Verified(File(filename=filename, role=role), path, hashlib.sha256(data).hexdigest())


def tar(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar as `tar czf` makes it: each folder before its files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.GNU_FORMAT) as archive:
        for folder in dict.fromkeys(name.rpartition("/")[0] for name in members):
            if folder:
                info = tarfile.TarInfo(folder)
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()
