"""The IDX layout: MNIST and its kin, one file of images and one of labels a split.

Format (http://yann.lecun.com/exdb/mnist/): two zero bytes, a type code, the number of dimensions, each dimension as a
big-endian uint32, then the values, big-endian, last dimension fastest. Files may be compressed or stand in a zip.
Images are kept exactly as published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from datahub.core.errors import BadArgument, LayoutError
from datahub.pack import archives, inflate
from datahub.pack.inflate import Stream
from datahub.pack.layouts import options as opt
from datahub.pack.layouts.cache import Cache
from datahub.pack.source import Chunk
from datahub.store.record import FieldSpec

if TYPE_CHECKING:
    from datahub.acquire import Verified

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MOST = 8 << 30
"""Most bytes of values a header may promise."""
LIMITS = archives.Limits(members=10_000, member=4 << 30, total=64 << 30)


class SplitOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    images: str
    """Role of the file."""
    labels: str
    images_member: str | None = None
    """The file is a zip, and this member of it is meant."""
    labels_member: str | None = None
    start: int = 0
    """First sample of the file that belongs to the split."""
    count: int | None = None
    """How many; all that follow by default."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    splits: dict[str, SplitOptions]
    label_column: int = 0
    """Which column of N x k labels is the class."""
    label_columns: list[str] | None = None
    """Names of all k columns; the others become int fields."""
    label_offset: int = 0
    """Taken from every published label."""


@dataclass(frozen=True, slots=True)
class Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))} {self.dtype.newbyteorder('=')}"


def read_header(stream: Stream) -> Header:
    """The type and shape an IDX file promises; raises `LayoutError`."""
    magic = stream.upto(4)
    if len(magic) < 4:
        raise stream.fault(f"truncated: {len(magic)} bytes are no IDX header")
    if magic[:2] != b"\0\0" or magic[2] not in TYPES:
        raise stream.fault(f"not an IDX file: it begins with {magic.hex(' ')}")
    if not 1 <= magic[3] <= 4:
        raise stream.fault(f"its header says {magic[3]} dimensions: 1 to 4 are read")
    sizes = stream.upto(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise stream.fault(f"truncated: its header has {len(sizes)} of {4 * magic[3]} bytes of dimensions")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    header = Header(np.dtype(TYPES[magic[2]]), shape)
    if header.bytes > MOST:
        raise stream.fault(f"its header says {header}: over {MOST} bytes")
    return header


def read_array(stream: Stream) -> np.ndarray:
    """A whole IDX file. Never reads more than the header says and one byte; raises `LayoutError`."""
    header = read_header(stream)
    data = stream.upto(header.bytes)
    if len(data) < header.bytes:
        raise stream.fault(f"its header says {header}, {header.bytes} bytes of values, but there are {len(data)}")
    if stream.read(1):  # reaching the end also makes the decompressor check its sum
        raise stream.fault(f"its header says {header}, {header.bytes} bytes of values, but more follow")
    return np.frombuffer(data, header.dtype).reshape(header.shape)


@dataclass(frozen=True, slots=True)
class _Place:
    """An IDX file: a published file, or a member of one."""

    path: Path
    name: str
    member: str | None

    @contextmanager
    def opened(self) -> Iterator[Stream]:
        if self.member is None:
            with inflate.opened(self.path) as stream:
                yield stream
        else:
            with archives.find(self.path, self.member, LIMITS) as member:
                yield Stream(member, str(self.path), self.member)

    def fault(self, reason: str) -> LayoutError:
        return LayoutError(str(self.path), self.member or "", reason)


def _images(place: _Place) -> np.ndarray:
    with place.opened() as stream:
        return read_array(stream)


def _labels(place: _Place) -> np.ndarray:
    """int64 (n, k)."""
    with place.opened() as stream:
        values = read_array(stream)
    return values.astype(np.int64).reshape(len(values), -1)


def _nbytes(array: np.ndarray) -> int:
    return int(array.nbytes)


class IdxSource:
    """Samples of IDX files. Every process that reads decompresses a file once and keeps it while it is in use."""

    random_access = True

    def __init__(
        self, options: Options, files: Mapping[str, Verified], splits: Mapping[str, int], classes: Sequence[str]
    ) -> None:
        self._options, self._splits, self._classes = options, dict(splits), len(classes)
        self._digests = {role: each.sha256 for role, each in sorted(files.items())}
        self._places = {
            name: (_place(files, split.images, split.images_member), _place(files, split.labels, split.labels_member))
            for name, split in options.splits.items()
        }
        identity = f"{self._places} {self.facts()} {self._splits} {self._classes}"
        self._arrays: Cache[np.ndarray] = Cache(f"arrays {identity}", _nbytes)
        self._headers: Cache[tuple[Header, Header]] = Cache(f"headers {identity}", len)

    def splits(self) -> Mapping[str, int]:
        return self._splits

    def classes(self) -> list[str] | None:
        return None

    def fields(self) -> Mapping[str, FieldSpec]:
        """Looks at the headers of every split: they must agree with each other and with the manifest."""
        shapes = {name: self._checked(name)[0].shape[1:] for name in self._splits}
        if len(set(shapes.values())) == 1:
            height, width, *channels = next(iter(shapes.values()))
            shape: list[int] | None = [height, width, *(channels or [1])]
        else:
            shape = None
        fields = {
            "image": FieldSpec(type="image", extension="png", shape=shape),
            "label": FieldSpec(type="label", extension="cls"),
        }
        return fields | {name: FieldSpec(type="int", extension="json") for _, name in self._columns()}

    def estimate(self, split: str) -> int:
        """Pen strokes and the like halve; photographs (colour) hardly shrink."""
        shape = self._checked(split)[0].shape[1:]
        return 70 + math.prod(shape) * (45 if len(shape) == 2 else 85) // 100

    def read(self, split: str, indices: np.ndarray) -> Chunk:
        self._checked(split)
        images_at, labels_at = self._places[split]
        images = self._arrays.get(images_at, lambda: _images(images_at))
        labels = self._arrays.get((labels_at, split), lambda: self._checked_labels(split, labels_at))
        chosen = np.asarray(indices, np.int64) + self._options.splits[split].start
        columns = labels[np.asarray(indices, np.int64)]
        return Chunk(
            images=images[chosen],
            labels=columns[:, self._options.label_column] - self._options.label_offset,
            sources=[f"{images_at.name}#{i}" for i in chosen.tolist()],
            scalars={name: columns[:, i].copy() for i, name in self._columns()},
        )

    def facts(self) -> dict[str, Any]:
        return {"kind": "idx", "options": msgspec.to_builtins(self._options), "files": self._digests}

    def _columns(self) -> list[tuple[int, str]]:
        names = self._options.label_columns or []
        return [(i, name) for i, name in enumerate(names) if i != self._options.label_column]

    def _checked(self, split: str) -> tuple[Header, Header]:
        """The headers of a split's two files, having been held against each other and the manifest."""
        return self._headers.get(split, lambda: self._check(split))

    def _check(self, split: str) -> tuple[Header, Header]:
        images_at, labels_at = self._places[split]
        with images_at.opened() as stream:
            images = read_header(stream)
        with labels_at.opened() as stream:
            labels = read_header(stream)
        if images.dtype != np.uint8 or len(images.shape) not in (3, 4):
            raise images_at.fault(f"its header says {images}: images are N x H x W or N x H x W x C of uint8")
        if not all(images.shape[1:]) or images.shape[3:] not in ((), (1,), (3,)):
            raise images_at.fault(f"its header says {images}: no images of that shape are read")
        if labels.dtype.kind == "f" or len(labels.shape) not in (1, 2):
            raise labels_at.fault(f"its header says {labels}: labels are N or N x k integers")
        if images.shape[0] != labels.shape[0]:
            raise labels_at.fault(f"{labels.shape[0]} labels for the {images.shape[0]} images of {images_at.name}")
        self._check_columns(labels_at, labels)
        self._check_count(split, images_at, images.shape[0])
        return images, labels

    def _check_columns(self, place: _Place, labels: Header) -> None:
        columns = math.prod(labels.shape[1:])
        names = self._options.label_columns
        if names is not None and len(names) != columns:
            raise place.fault(f"its header says {columns} columns, layout.options.label_columns names {len(names)}")
        if self._options.label_column >= columns:
            raise place.fault(f"its header says {columns} columns: there is no column {self._options.label_column}")

    def _check_count(self, split: str, place: _Place, there: int) -> None:
        chosen = self._options.splits[split]
        left = max(0, there - chosen.start)
        count = left if chosen.count is None else chosen.count
        if count > left:
            raise place.fault(f"it has {there} images: split {split} wants {count} from number {chosen.start} on")
        if count != self._splits[split]:
            raise place.fault(f"split {split} has {count} images in it, the manifest says {self._splits[split]}")

    def _checked_labels(self, split: str, place: _Place) -> np.ndarray:
        """int64 (n, k) of this split alone, as published; its classes are in range."""
        start = self._options.splits[split].start
        values = _labels(place)[start : start + self._splits[split]]
        labels = values[:, self._options.label_column] - self._options.label_offset
        wrong = labels < 0
        if self._classes:
            wrong |= labels >= self._classes
        if wrong.any():
            at = int(wrong.argmax())
            reason = f"label {labels[at]} of sample {start + at} is outside the {self._classes} classes"
            raise place.fault(reason)
        return values


def _place(files: Mapping[str, Verified], role: str, member: str | None) -> _Place:
    file = files[role]
    return _Place(file.path, member.rsplit("/", 1)[-1] if member else file.file.filename, member)


def open_source(
    options: Mapping[str, Any], files: Mapping[str, Verified], *, splits: Mapping[str, int], classes: Sequence[str]
) -> IdxSource:
    """Raises `BadArgument` where the options do not fit the files, the splits or each other."""
    read = opt.read(options, Options)
    if set(read.splits) != set(splits):
        listed = ", ".join(splits)
        raise BadArgument(f"{opt.PLACE}.splits", ", ".join(read.splits), f"the manifest's splits are {listed}")
    for name, split in read.splits.items():
        _check_split(f"{opt.PLACE}.splits.{name}", split, files)
    _check_names(read)
    return IdxSource(read, files, splits, classes)


def _check_split(place: str, split: SplitOptions, files: Mapping[str, Verified]) -> None:
    for key, role in (("images", split.images), ("labels", split.labels)):
        if role not in files:
            raise BadArgument(f"{place}.{key}", role, "no file has this role", f"known: {', '.join(sorted(files))}")
    if split.start < 0:
        raise BadArgument(f"{place}.start", split.start, "must not be negative")
    if split.count is not None and split.count < 1:
        raise BadArgument(f"{place}.count", split.count, "must be at least 1")


def _check_names(read: Options) -> None:
    if read.label_column < 0:
        raise BadArgument(f"{opt.PLACE}.label_column", read.label_column, "must not be negative")
    names = read.label_columns or []
    for i, name in enumerate(names):
        place = f"{opt.PLACE}.label_columns[{i}]"
        if i == read.label_column:
            continue
        opt.field_name(name, place)
        if name == "label" or name in names[:i]:
            raise BadArgument(place, name, "is taken already")
