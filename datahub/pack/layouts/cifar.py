"""The CIFAR layout: pickled batches inside the published tar archive, read as a stream through a restricted unpickler.

Format (https://www.cs.toronto.edu/~kriz/cifar.html): each batch is a dictionary with ``data``, N x 3072 uint8, each row
a red, a green and a blue plane of 32 x 32; a list of N labels; and the N original file names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from datahub.core import digests
from datahub.core.digests import Digest
from datahub.core.errors import BadArgument, DigestMismatch, LayoutError
from datahub.pack import unpickle
from datahub.pack.archives import Limits, Member, walk
from datahub.pack.layouts import options as opt
from datahub.pack.layouts.cache import Cache
from datahub.pack.source import Chunk
from datahub.store.record import FieldSpec

if TYPE_CHECKING:
    from datahub.acquire import Verified

SIDE = 32
ROW = 3 * SIDE * SIDE
PNG_BYTES = 2500
"""A CIFAR-10 image as PNG takes 2.1 to 2.6 kB."""
LIMITS = Limits(members=1000, name=256, member=512 << 20, total=4 << 30)


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    archive: str
    """Role of the file."""
    splits: dict[str, list[str]]
    """Members that make each split, in order."""
    meta: str | None = None
    """The member that names the classes."""
    meta_key: str = "label_names"
    label_key: str = "labels"
    extra: dict[str, str] = {}
    """Field name -> key of another list of ints."""
    member_md5: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class _Split:
    images: np.ndarray
    """uint8 (n, 32, 32, 3)."""
    labels: np.ndarray
    scalars: dict[str, np.ndarray]
    names: list[str]


def _nbytes(split: _Split) -> int:
    return int(split.images.nbytes)


class CifarSource:
    """Samples of one archive. A split is read in one pass over it, and kept while it is in use."""

    random_access = True

    def __init__(self, options: Options, file: Verified, splits: Mapping[str, int], classes: Sequence[str]) -> None:
        self._options, self._path, self._digest = options, file.path, file.sha256
        self._counts, self._classes = dict(splits), list(classes)
        identity = f"{self._path} {self.facts()} {self._counts} {self._classes}"
        self._splits: Cache[_Split] = Cache(f"splits {identity}", _nbytes)
        self._names: Cache[list[str]] = Cache(f"names {identity}", len)

    def splits(self) -> Mapping[str, int]:
        return self._counts

    def classes(self) -> list[str] | None:
        """The names in the archive's meta member. Reads the archive up to it."""
        if self._options.meta is None:
            return None
        return self._names.get("meta", self._read_meta)

    def fields(self) -> Mapping[str, FieldSpec]:
        fields = {
            "image": FieldSpec(type="image", extension="png", shape=[SIDE, SIDE, 3]),
            "label": FieldSpec(type="label", extension="cls"),
        }
        return fields | {name: FieldSpec(type="int", extension="json") for name in self._options.extra}

    def estimate(self, split: str) -> int:  # noqa: ARG002 - all splits are alike
        return PNG_BYTES

    def read(self, split: str, indices: np.ndarray) -> Chunk:
        whole = self._splits.get(split, lambda: self._read_split(split))
        chosen = np.asarray(indices, np.int64)
        return Chunk(
            images=whole.images[chosen],
            labels=whole.labels[chosen],
            sources=[whole.names[i] for i in chosen.tolist()],
            scalars={name: values[chosen] for name, values in whole.scalars.items()},
        )

    def facts(self) -> dict[str, Any]:
        return {"kind": "cifar", "options": msgspec.to_builtins(self._options), "files": {"archive": self._digest}}

    # -- reading -----------------------------------------------------------------------------------------------------

    def _members(self, wanted: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each of these members and its dictionary, as they come in one pass that ends with the last of them."""
        missing = list(wanted)
        with closing(walk(self._path, LIMITS)) as members:
            for member in members:
                if member.name in missing:
                    missing.remove(member.name)
                    yield member.name, self._load(member)
                if not missing:
                    return
        raise self._fault("", f"the archive has no member {', '.join(missing)}")

    def _load(self, member: Member) -> dict[str, Any]:
        data = member.read()
        md5 = self._options.member_md5.get(member.name)
        if md5 is not None:
            actual = digests.new("md5")
            actual.update(data)
            if actual.hexdigest() != md5:
                raise DigestMismatch(f"{self._path}/{member.name}", f"md5:{md5}", f"md5:{actual.hexdigest()}")
        return unpickle.load(data, str(self._path), member.name, most=LIMITS.member)

    def _read_meta(self) -> list[str]:
        meta = self._options.meta
        assert meta is not None, "asked for only where there is one"
        [(_, table)] = self._members([meta])
        return self._class_names(meta, table)

    def _class_names(self, member: str, table: dict[str, Any]) -> list[str]:
        """The classes of the meta member, which must be the manifest's."""
        names = [_text(each) for each in self._list(member, table, self._options.meta_key, bytes | str)]
        if self._classes and names != self._classes:
            raise self._fault(member, _disagreement(names, self._classes))
        return names

    def _read_split(self, split: str) -> _Split:
        wanted = self._options.splits[split]
        meta = self._options.meta
        found: dict[str, _Split] = {}
        for member, table in self._members(wanted if meta is None else [*wanted, meta]):
            if member == meta:
                self._class_names(member, table)
            else:
                found[member] = self._batch(member, table)
        batches = [found[member] for member in wanted]
        count = sum(len(batch.names) for batch in batches)
        if count != self._counts[split]:
            raise self._fault("", f"split {split} has {count} images, the manifest says {self._counts[split]}")
        return _Split(
            np.concatenate([batch.images for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
            {name: np.concatenate([batch.scalars[name] for batch in batches]) for name in self._options.extra},
            [name for batch in batches for name in batch.names],
        )

    def _batch(self, member: str, table: dict[str, Any]) -> _Split:
        data = table.get("data")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != ROW:
            raise self._fault(member, f"its data are {_described(data)}, not N x {ROW} uint8")
        count = len(data)
        labels = self._ints(member, table, self._options.label_key, count)
        wrong = (labels < 0) | (labels >= len(self._classes) if self._classes else False)
        if wrong.any():
            at = int(wrong.argmax())
            raise self._fault(member, f"label {labels[at]} of image {at} is outside the {len(self._classes)} classes")
        scalars = {name: self._ints(member, table, key, count) for name, key in self._options.extra.items()}
        planes = data.reshape(count, 3, SIDE, SIDE)
        return _Split(
            np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels, scalars, self._files(member, table, count)
        )

    def _files(self, member: str, table: dict[str, Any], count: int) -> list[str]:
        if "filenames" not in table:
            return [f"{member}#{i}" for i in range(count)]
        names = self._list(member, table, "filenames", bytes | str)
        if len(names) != count:
            raise self._fault(member, f"{len(names)} filenames for {count} images")
        return [_text(each) for each in names]

    def _ints(self, member: str, table: dict[str, Any], key: str, count: int) -> np.ndarray:
        values = self._list(member, table, key, int)
        if len(values) != count:
            raise self._fault(member, f"{len(values)} {key} for {count} images")
        try:
            return np.array(values, np.int64)
        except OverflowError as error:
            raise self._fault(member, f"{key} holds a number beyond 64 bits") from error

    def _list(self, member: str, table: dict[str, Any], key: str, kind: Any) -> list[Any]:
        values = table.get(key)
        if values is None:
            raise self._fault(member, f"it has no {key!r}, but {', '.join(sorted(table)) or 'nothing'}")
        if not isinstance(values, list) or not all(isinstance(each, kind) for each in values):
            raise self._fault(member, f"its {key!r} is {_described(values)}, not a plain list")
        return values

    def _fault(self, member: str, reason: str) -> LayoutError:
        return LayoutError(str(self._path), member, reason)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{'x'.join(map(str, value.shape))} {value.dtype}"
    return "missing" if value is None else f"a {type(value).__name__}"


def _disagreement(names: list[str], classes: list[str]) -> str:
    if len(names) != len(classes):
        return f"it names {len(names)} classes, the manifest {len(classes)}"
    at = next(i for i, (left, right) in enumerate(zip(names, classes, strict=True)) if left != right)
    return f"class {at} is {names[at]!r}, in the manifest {classes[at]!r}"


def open_source(
    options: Mapping[str, Any], files: Mapping[str, Verified], *, splits: Mapping[str, int], classes: Sequence[str]
) -> CifarSource:
    """Raises `BadArgument` where the options do not fit the files, the splits or each other."""
    read = opt.read(options, Options)
    if read.archive not in files:
        known = f"known: {', '.join(sorted(files))}"
        raise BadArgument(f"{opt.PLACE}.archive", read.archive, "no file has this role", known)
    if set(read.splits) != set(splits):
        listed = ", ".join(splits)
        raise BadArgument(f"{opt.PLACE}.splits", ", ".join(read.splits), f"the manifest's splits are {listed}")
    for name, members in read.splits.items():
        if not members or len(set(members)) != len(members):
            raise BadArgument(f"{opt.PLACE}.splits.{name}", members, "must list its members, each once")
    for name in read.extra:
        opt.field_name(name, f"{opt.PLACE}.extra")
        if name == "label":
            raise BadArgument(f"{opt.PLACE}.extra", name, "is taken already", "choose another")
    for member, md5 in read.member_md5.items():
        _check_md5(member, md5)
    return CifarSource(read, files[read.archive], splits, classes)


def _check_md5(member: str, md5: str) -> None:
    try:
        Digest.parse(f"md5:{md5}")
    except ValueError as error:
        raise BadArgument(
            f"{opt.PLACE}.member_md5.{member}", md5, "is not an MD5: write 32 lower-case hex digits"
        ) from error
