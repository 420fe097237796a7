"""A reader of the pickles published with CIFAR: dictionaries of numbers, byte strings, lists and numpy arrays.

No pickle is run. A small machine knows the opcodes that plain data need and three names, which stand for arrays and
their types and are never called: anything else a pickle asks for is refused before anything of it exists. Format:
the standard library's pickletools; the state of arrays and types: numpy's `ndarray.__reduce__` and `dtype.__reduce__`.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np

from datahub.core.errors import LayoutError, UnsafePickle

MOST = 1 << 30
"""Most bytes of a pickle."""
PROTOCOL = 4
TYPE_CODE = re.compile(r"[<>|=]?([biuf][1248])")
DIMENSIONS = 8


class Name(Enum):
    """The only names a pickle may ask for."""

    RECONSTRUCT = "numpy.core.multiarray._reconstruct"
    NDARRAY = "numpy.ndarray"
    DTYPE = "numpy.dtype"
    ENCODE = "_codecs.encode"
    """How Python 3 writes byte strings for Python 2."""


NAMES = {tuple(name.value.rsplit(".", 1)): name for name in Name}
NAMES["numpy._core.multiarray", "_reconstruct"] = Name.RECONSTRUCT


class _Mark:
    """Where a list of operands begins."""


MARK = _Mark()


class _Type:
    """A plain number type, once built with its byte order."""

    def __init__(self, code: str) -> None:
        self.code, self.dtype = code, np.dtype("|" + code)


class _Array:
    """An array that has been announced; `value` comes with its state."""

    def __init__(self) -> None:
        self.value: np.ndarray | None = None


def load(data: bytes, path: str, place: str = "", *, most: int = MOST) -> dict[str, Any]:
    """The dictionary in ``data``; its keys as text, strings of Python 2 as ``bytes``, arrays read-only.

    ``path`` and ``place`` name it in errors. Raises `UnsafePickle` where it asks for a name or an opcode that plain
    data do not need, and `LayoutError` where it is damaged, over ``most`` bytes, or not a dictionary.
    """
    if len(data) > most:
        raise LayoutError(path, place, f"a pickle of {len(data)} bytes: at most {most} are read")
    machine = _Machine(data, path, place)
    top = machine.run()
    if not isinstance(top, dict):
        raise LayoutError(path, place, f"the pickle holds {_kind(top)}, not a dictionary")
    found: dict[str, Any] = {}
    for key, value in top.items():
        name = key.decode("latin-1") if isinstance(key, bytes) else key
        if name in found:
            raise LayoutError(path, place, f"the pickle has two entries {name!r}")
        found[name] = machine.plain(value)
    return found


def _kind(value: object) -> str:
    if isinstance(value, Name | _Type):
        return "a type"
    name = "array" if isinstance(value, _Array) else type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


class _Machine:
    """The pickle virtual machine, without objects. Work and memory are bounded by the length of ``data``."""

    def __init__(self, data: bytes, path: str, place: str) -> None:
        self._data, self._path, self._place = data, path, place
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0
        self._seen: set[int] = set()

    def run(self) -> Any:
        """What the pickle leaves on the stack."""
        if self._data[:1] != b"\x80":
            self._without_protocol()
        while (code := self._take(1)) != b".":
            step = STEPS.get(code)
            if step is None:
                raise self._unknown(code)
            step(self)
        if len(self._stack) != 1 or self._stack[0] is MARK:
            raise self.fault(f"{len(self._stack)} values are left at its end")
        if self._at != len(self._data):
            raise self.fault(f"{len(self._data) - self._at} bytes follow its end")
        return self._stack[0]

    def plain(self, value: Any) -> Any:
        """``value`` without stand-ins. Lists are looked at one level deep: no layout needs more."""
        if isinstance(value, _Array):
            if value.value is None:
                raise self.fault("an array without contents")
            return value.value
        if isinstance(value, Name | _Type):
            raise self.fault("a type where a value should be")
        if isinstance(value, list | tuple) and id(value) not in self._seen:
            self._seen.add(id(value))  # one list may stand under every key
            for each in value:
                if not (each is None or isinstance(each, int | float | bytes | str)):
                    raise self.fault(f"a list that holds {_kind(each)}")
        return value

    def fault(self, reason: str) -> LayoutError:
        return LayoutError(self._path, self._place, f"damaged pickle: {reason}")

    def _without_protocol(self) -> None:
        """Pickles older than protocol 2 are not read; where one names something, say what."""
        for opcode, argument, _ in _opcodes(self._data):
            if opcode in ("GLOBAL", "INST"):
                self._name(*str(argument).split(" ", 1))
        raise self.fault("it does not begin with a protocol of 2 or later")

    def _unknown(self, code: bytes) -> Exception:
        if code == b"i":  # INST calls the class it names
            module, name = self._line(), self._line()
            return UnsafePickle(self._path, f"{module}.{name}")
        for opcode in pickletools.opcodes:
            if opcode.code == code.decode("latin-1"):
                return UnsafePickle(self._path, f"the opcode {opcode.name}")
        return self.fault(f"byte {self._at - 1} is no opcode")

    # -- operands ----------------------------------------------------------------------------------------------------

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise self.fault(f"truncated at byte {len(self._data)}")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def _unsigned(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + 512)
        if end < 0:
            raise self.fault(f"truncated at byte {self._at}")
        line = self._data[self._at : end]
        self._at = end + 1
        return line.decode("utf-8", "backslashreplace")

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is MARK:
            raise self.fault(f"byte {self._at - 1} takes from an empty stack")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise self.fault(f"byte {self._at - 1} wants a {kind.__name__}")
        return self._stack[-1]

    def _marked(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is MARK:
                values = self._stack[i + 1 :]
                del self._stack[i:]
                return values
        raise self.fault(f"byte {self._at - 1} wants a mark")

    # -- opcodes -----------------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def protocol(self) -> None:
        version = self._unsigned(1)
        if not 2 <= version <= PROTOCOL:
            raise self.fault(f"protocol {version} is not read: 2 to {PROTOCOL} are")

    def integer(self, width: int) -> None:
        self.push(self._unsigned(width))

    def signed(self) -> None:
        self.push(int.from_bytes(self._take(4), "little", signed=True))

    def long(self) -> None:
        self.push(int.from_bytes(self._take(self._unsigned(1)), "little", signed=True))

    def double(self) -> None:
        self.push(struct.unpack(">d", self._take(8))[0])

    def octets(self, width: int) -> None:
        self.push(self._take(self._unsigned(width)))

    def text(self, width: int) -> None:
        data = self._take(self._unsigned(width))
        try:
            self.push(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise self.fault(f"a string is not UTF-8: {error.reason}") from error

    def collect(self) -> None:
        self.push(tuple(self._marked()))

    def tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def appends(self) -> None:
        values = self._marked()
        self._top(list).extend(values)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._store([key, value])

    def set_items(self) -> None:
        self._store(self._marked())

    def _store(self, pairs: list[Any]) -> None:
        table = self._top(dict)
        if len(pairs) % 2:
            raise self.fault("a key without a value")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, bytes | str):
                raise self.fault(f"{_kind(key)} as a key")
            table[key] = value

    def put(self, width: int) -> None:
        self._remember(self._unsigned(width))

    def memoize(self) -> None:
        self._remember(len(self._memo))

    def _remember(self, index: int) -> None:
        if not self._stack or self._stack[-1] is MARK:
            raise self.fault(f"byte {self._at - 1} remembers nothing")
        if index > len(self._data):  # a pickler counts upwards: this one means harm to readers that make room for it
            raise self.fault(f"it remembers a value number {index}")
        self._memo[index] = self._stack[-1]

    def get(self, width: int) -> None:
        index = self._unsigned(width)
        if index not in self._memo:
            raise self.fault(f"it recalls a value number {index} that it never kept")
        self.push(self._memo[index])

    def frame(self) -> None:
        if self._unsigned(8) > len(self._data) - self._at:
            raise self.fault(f"truncated at byte {len(self._data)}")

    # -- names, arrays and types -------------------------------------------------------------------------------------

    def named(self) -> None:
        module, name = self._line(), self._line()
        self.push(self._name(module, name))

    def named_on_stack(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.fault("a name that is not text")
        self.push(self._name(module, name))

    def _name(self, module: str, name: str = "") -> Name:
        known = NAMES.get((module, name))
        if known is None:
            raise UnsafePickle(self._path, f"{module}.{name}"[:200])
        return known

    def reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise self.fault("a call without a tuple of arguments")
        match name, arguments:
            case Name.RECONSTRUCT, (Name.NDARRAY, (0,), b"b" | "b"):
                self.push(_Array())
            case Name.DTYPE, (bytes() | str() as code, int(), int()):
                self.push(self._type(code))
            case Name.ENCODE, (str() as text, "latin1" | b"latin1"):
                self.push(self._encode(text))
            case Name(), _:
                raise UnsafePickle(self._path, f"{name.value} with other arguments than an array of numbers has")
            case _:
                raise UnsafePickle(self._path, f"a call of {_kind(name)}")

    def _encode(self, text: str) -> bytes:
        self._encoded += len(text)
        if self._encoded > len(self._data):  # one text, encoded again and again
            raise self.fault("its byte strings outgrow it")
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise self.fault("a byte string with characters past 255") from error

    def _type(self, code: bytes | str) -> _Type:
        text = code.decode("latin-1") if isinstance(code, bytes) else code
        found = TYPE_CODE.fullmatch(text)
        if not found or found[1] in ("b2", "b4", "b8", "f1"):
            raise UnsafePickle(self._path, f"numpy.dtype({text[:40]!r})")
        return _Type(found[1])

    def build(self) -> None:
        state, target = self._pop(), self._pop()
        self.push(target)
        match target, state:
            case _Type(), (3, bytes() | str() as order, None, None, None, -1, -1, 0):
                text = order.decode("latin-1") if isinstance(order, bytes) else order
                if text not in ("<", ">", "|", "="):
                    raise self.fault(f"{text[:8]!r} is no byte order")
                target.dtype = np.dtype((text if text != "=" else "<") + target.code)
            case _Array(), (1, tuple() as shape, _Type() as kind, bool() as fortran, bytes() as data):
                if target.value is not None:
                    raise self.fault("an array is filled twice")
                target.value = self._array(shape, kind.dtype, fortran, data)
            case _Array() | _Type(), _:
                raise UnsafePickle(self._path, "an array of something other than plain numbers")
            case _:
                raise UnsafePickle(self._path, f"a state for {_kind(target)}")

    def _array(self, shape: tuple[Any, ...], dtype: np.dtype[Any], fortran: bool, data: bytes) -> np.ndarray:
        right = all(type(size) is int and 0 <= size < 1 << 40 for size in shape)
        if not right or not 0 < len(shape) <= DIMENSIONS:
            raise self.fault("an array of impossible shape")
        if math.prod(shape) * dtype.itemsize != len(data):
            sizes = "x".join(map(str, shape))
            raise self.fault(f"an array of {sizes} {dtype} with {len(data)} bytes of data")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _opcodes(data: bytes) -> list[tuple[str, Any, int | None]]:
    """The opcodes up to the first that is damaged, of a pickle too old to be read (only its first 64 KiB)."""
    found: list[tuple[str, Any, int | None]] = []
    try:
        for opcode, argument, at in pickletools.genops(data[: 1 << 16]):
            found.append((opcode.name, argument, at))
    except (ValueError, OverflowError, UnicodeError):
        return found
    return found


def _pushing(make: Callable[[], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.push(make())


def _sized(step: Callable[[_Machine, int], None], width: int) -> Callable[[_Machine], None]:
    return lambda machine: step(machine, width)


STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,
    b"(": _pushing(lambda: MARK),
    b"N": _pushing(lambda: None),
    b"\x88": _pushing(lambda: True),
    b"\x89": _pushing(lambda: False),
    b"}": _pushing(dict),
    b"]": _pushing(list),
    b")": _pushing(tuple),
    b"K": _sized(_Machine.integer, 1),
    b"M": _sized(_Machine.integer, 2),
    b"J": _Machine.signed,
    b"\x8a": _Machine.long,
    b"G": _Machine.double,
    b"U": _sized(_Machine.octets, 1),
    b"T": _sized(_Machine.octets, 4),
    b"C": _sized(_Machine.octets, 1),
    b"B": _sized(_Machine.octets, 4),
    b"X": _sized(_Machine.text, 4),
    b"\x8c": _sized(_Machine.text, 1),
    b"t": _Machine.collect,
    b"\x85": _sized(_Machine.tuple_of, 1),
    b"\x86": _sized(_Machine.tuple_of, 2),
    b"\x87": _sized(_Machine.tuple_of, 3),
    b"a": _Machine.append,
    b"e": _Machine.appends,
    b"s": _Machine.set_item,
    b"u": _Machine.set_items,
    b"q": _sized(_Machine.put, 1),
    b"r": _sized(_Machine.put, 4),
    b"\x94": _Machine.memoize,
    b"h": _sized(_Machine.get, 1),
    b"j": _sized(_Machine.get, 4),
    b"c": _Machine.named,
    b"\x93": _Machine.named_on_stack,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}
