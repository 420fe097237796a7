"""The restricted unpickler: what plain data need and nothing else, whatever the bytes."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.core.errors import LayoutError, UnsafePickle
from datahub.pack.unpickle import load

RAN: list[str] = []


def boom(*arguments: Any) -> str:
    RAN.append("boom")
    return "boom"


def python2(count: int = 3, width: int = 4) -> bytes:
    """A batch as Python 2's cPickle wrote it: protocol 2, byte strings, numpy.core.multiarray._reconstruct."""
    data = bytes(range(count * width))
    names = b"".join(b"U" + bytes([5]) + b"%d.png" % i for i in range(count))
    labels = b"".join(b"K" + bytes([i]) for i in range(count))
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x05first"
        b"U\x06labelsq\x03]q\x04(" + labels + b"e"
        b"U\x04dataq\x05cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85U\x01b\x87Rq\x08"
        b"(K\x01K" + bytes([count]) + b"K" + bytes([width]) + b"\x86cnumpy\ndtype\nq\x09U\x02u1K\x00K\x01\x87Rq\x0a"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<I", len(data)) + data + b"tb"
        b"U\x09filenamesq\x0b](" + names + b"eu."
    )


RECONSTRUCTOR = np.zeros(1).__reduce__()[0]


class Stdlib(pickle.Unpickler):
    """The standard library's, let at numpy alone: what our reader is held against."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCTOR,
            ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCTOR,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
        }
        return known[module, name]


def stdlib(data: bytes) -> dict[str, Any]:
    table = Stdlib(io.BytesIO(data), encoding="bytes").load()
    return {key.decode("latin-1") if isinstance(key, bytes) else key: value for key, value in table.items()}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        return isinstance(right, np.ndarray) and left.dtype == right.dtype and np.array_equal(left, right)
    return type(left) is type(right) and (left == right or left != left)


def test_reads_what_python_2_wrote() -> None:
    found = load(python2(), "batch")
    assert found["labels"] == [0, 1, 2]
    assert found["filenames"] == [b"0.png", b"1.png", b"2.png"]
    assert found["data"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert not found["data"].flags.writeable
    assert all(same(value, found[key]) for key, value in stdlib(python2()).items())


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i4", "<i8", "<f4", ">f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_reads_what_python_3_writes(protocol: int, dtype: str, order: Any) -> None:
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    table = {
        "data": array,
        "n": 70_000,
        "neg": -1,
        "f": 1.5,
        "text": "é",
        "raw": b"\xff\0",
        "none": None,
        "l": [1, "b"],
    }
    table |= {"big": 1 << 70, "yes": True, "tuple": (1, 2, 3, 4), "empty": [], "nothing": b""}
    if protocol == 2:
        del table["nothing"]  # written as a call of bytes()
    found = load(pickle.dumps(table, protocol), "file")
    assert list(found) == list(table)
    assert all(same(found[key], value) for key, value in table.items())


def exploit(callable_: Any, *arguments: Any) -> Any:
    class Exploit:
        def __reduce__(self) -> Any:
            return callable_, arguments

    return Exploit()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("callable_", [os.system, builtins.eval, builtins.getattr, boom, np.load, np.frombuffer])
def test_pickle_that_calls_something(protocol: int, callable_: Any) -> None:
    RAN.clear()
    data = pickle.dumps({"data": exploit(callable_, "echo ran")}, protocol)
    if protocol == 5:
        with pytest.raises(LayoutError, match="protocol 5 is not read"):
            load(data, "batch")
        return
    with pytest.raises(UnsafePickle) as caught:
        load(data, "batch")
    assert callable_.__name__ in caught.value.name
    assert not RAN


HEAD = b"\x80\x02"
DTYPE = b"cnumpy\ndtype\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EMPTY = RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
U1 = DTYPE + b"U\x02u1K\x00K\x01\x87R"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"cos\nsystem\n(U\x04echotR", "os.system"),
        (b"(U\x04echoios\nsystem\n", "os.system"),
        (b"\x8c\x02os\x8c\x06system\x93U\x04echo\x85R", "os.system"),
        (b"\x8c\x05numpy\x8c\x10ndarray.__init__\x93", "numpy.ndarray.__init__"),
        (b"\x8c\x05numpy\x8c\x06f2py.x\x93", "numpy.f2py.x"),
        (b"cnumpy.core\nmultiarray._reconstruct\n", "numpy.core.multiarray._reconstruct"),
        (b"c__builtin__\nobject\n)\x81", "__builtin__.object"),
        (b"cnumpy\nndarray\nK\x04\x85R", "numpy.ndarray with other arguments"),
        (b"cnumpy\nndarray\nK\x04\x85\x81", "opcode NEWOBJ"),
        (b"(cnumpy\nndarray\nK\x04o", "opcode OBJ"),
        (b"\x82\x01", "opcode EXT1"),
        (b"Pname\n", "opcode PERSID"),
        (b"U\x01aQ", "opcode BINPERSID"),
        (DTYPE + b"U\x01OK\x00K\x01\x87R", "numpy.dtype('O')"),
        (DTYPE + b"U\x02V8K\x00K\x01\x87R", "numpy.dtype('V8')"),
        (DTYPE + b"U\x02f1K\x00K\x01\x87R", "numpy.dtype('f1')"),
        (DTYPE + b"](U\x01aU\x01OeK\x00K\x01\x87R", "numpy.dtype with other arguments"),
        (RECONSTRUCT + b"cnumpy\ndtype\nK\x00\x85U\x01b\x87R", "_reconstruct with other arguments"),
        (RECONSTRUCT + b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01b\x87R", "_reconstruct with other arguments"),
        (RECONSTRUCT + b"cnumpy\nndarray\nK\x00\x85U\x01O\x87R", "_reconstruct with other arguments"),
        (b"c_codecs\nencode\nU\x01aX\x05\0\0\0bz2_c\x86R", "_codecs.encode with other arguments"),
        (b"K\x01K\x02\x85R", "a call of an int"),
        (b"cnumpy\nndarray\n}U\x01aU\x01bsb", "a state for a type"),
        (RECONSTRUCT + b"N}U\x0c__defaults__K\x01\x85s\x86b", "a state for a type"),
        (EMPTY + b"(K\x01K\x01\x85" + U1 + b"\x89](K\x01K\x02etb", "something other than plain numbers"),
        (U1 + b"(K\x03U\x01|U\x01ONNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb", "something other than plain numbers"),
    ],
)
def test_hostile_pickles(body: bytes, name: str) -> None:
    with pytest.raises(UnsafePickle) as caught:
        load(HEAD + b"}U\x01k" + body + b"s.", "batch")
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.path == "batch"


def filled(shape: bytes, data: bytes) -> bytes:
    return EMPTY + b"(K\x01" + shape + U1 + b"\x89U" + bytes([len(data)]) + data + b"tb"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (filled(b"K\x05\x85", b"abcd"), "an array of 5 uint8 with 4 bytes"),
        (filled(b"J\xff\xff\xff\xff\x85", b""), "impossible shape"),
        (filled(b"\x8a\x09" + b"\xff" * 8 + b"\0\x85", b""), "impossible shape"),
        (filled(b")", b"a"), "impossible shape"),
        (filled(b"N\x85", b""), "impossible shape"),
        (filled(b"(" + b"K\x01" * 40 + b"t", b"a"), "impossible shape"),
        (EMPTY, "an array without contents"),
        (b"](" + EMPTY + b"e", "a list that holds an array"),
        (b"](](](eee", "a list that holds a list"),
        (b"cnumpy\ndtype\n", "a type where a value should be"),
        (b"r\xff\xff\xff\x7f", "remembers a value number 2147483647"),
        (b"j\x01\0\0\0", "never kept"),
        (b"T\xff\xff\xff\x7fabc", "truncated"),
        (b"\x95" + b"\xff" * 8, "truncated"),
        (b"X\x02\0\0\0\xff\xff", "not UTF-8"),
        (b"0", "POP"),
    ],
)
def test_damaged_pickles(body: bytes, reason: str) -> None:
    with pytest.raises((LayoutError, UnsafePickle)) as caught:
        load(HEAD + b"}U\x01k" + body + b"s.", "batch", "member")
    assert reason in str(caught.value)


def test_over_the_cap_and_bytes_after_the_end() -> None:
    with pytest.raises(LayoutError, match="at most 10 are read"):
        load(python2(), "batch", most=10)
    with pytest.raises(LayoutError, match="3 bytes follow"):
        load(python2() + b"abc", "batch")
    with pytest.raises(LayoutError, match="two entries"):
        load(HEAD + b"}(U\x01aK\x01X\x01\0\0\0aK\x02u.", "batch")


def test_bombs_cost_neither_time_nor_memory() -> None:
    encode = b"c_codecs\nencode\nq\x02"
    text = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000 + b"q\x01"
    again = b"h\x02h\x01X\x06\0\0\0latin1\x86R"
    encodes = HEAD + b"}U\x01k](" + text + encode + again * 5_000 + b"es."
    one_list = HEAD + b"}(U\x01k](" + b"K\x01" * 20_000 + b"eq\x01"
    many_keys = b"".join(b"U\x05%05dh\x01" % i for i in range(20_000))
    tracemalloc.start()
    try:
        with pytest.raises(LayoutError, match="outgrow"):
            load(encodes, "bomb")
        assert len(load(one_list + many_keys + b"u.", "bomb")) == 20_001
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()


SEEDS = [
    python2(),
    *(
        pickle.dumps(
            {"data": np.arange(12, dtype="<i2").reshape(3, 4), "labels": [0, 300, 70_000], "n": ["a", b"b"]}, p
        )
        for p in (2, 3, 4)
    ),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # escapes in mutated text, from the standard library
@settings(max_examples=600, deadline=None)
@given(st.data())
@pytest.mark.filterwarnings("ignore::numpy.exceptions.VisibleDeprecationWarning")  # of dtypes no file has
def test_mutated_pickles(data: st.DataObject) -> None:
    """Our errors, or exactly what the standard library makes of the same bytes."""
    spoilt = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                spoilt[at] = data.draw(st.integers(0, 255))
            case 1:
                del spoilt[at : at + data.draw(st.integers(1, 9))]
            case _:
                spoilt[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        if not spoilt:
            break
    try:
        found = load(bytes(spoilt), "file")
    except (LayoutError, UnsafePickle):
        return
    try:
        expected = stdlib(bytes(spoilt))
    except (ValueError, EOFError, pickle.UnpicklingError):
        # A frame whose length lies stops the standard library; here frames are hints that are passed over.
        assert b"\x95" in spoilt
        assert isinstance(found, dict)
        return
    assert list(found) == list(expected)
    assert all(same(found[key], value) for key, value in expected.items())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise(noise: bytes) -> None:
    for head in (b"", HEAD, HEAD + b"}", b"\x80\x04\x95"):
        try:
            found = load(head + noise, "file")
        except (LayoutError, UnsafePickle):
            continue
        assert isinstance(found, dict)
