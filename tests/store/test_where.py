"""Filters as text: what they mean, against Python's own reading of them, and what is refused with which words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datahub.core.errors import BadArgument
from datahub.store import index
from datahub.store.where import canonical, parse

CLASSES = ("cat", "dog", "sea lion")
ROWS = 400
RNG = np.random.default_rng(0)
COLUMNS = {
    "key": [f"train-{row:09d}" for row in range(ROWS)],
    "source": [None if row % 7 == 0 else f"n{row % 5}/{row}.jpg" for row in range(ROWS)],
    "label": RNG.integers(0, 3, ROWS),
    "width": RNG.integers(1, 500, ROWS).astype(np.int32),
    "height": RNG.integers(1, 500, ROWS).astype(np.int32),
    "score": [None if row % 11 == 0 else float(row) / 4 for row in range(ROWS)],
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("where") / "index.parquet"
    pq.write_table(pa.table(COLUMNS), path, row_group_size=64)
    return path


def kept(path, text) -> list[bool]:
    return index.meets(path, parse(text, index.schema(path), CLASSES)).tolist()


def by_hand(text) -> list[bool]:
    """Python's own answer; only for filters without empty columns, where SQL and Python agree."""
    rows = ({name: values[row] for name, values in COLUMNS.items()} for row in range(ROWS))
    return [bool(eval(text, {"__builtins__": {}}, row)) for row in rows]


@pytest.mark.parametrize(
    "text",
    [
        "label in (1, 2) and width >= 256",
        "label == 1 or not (width < 100 or height < 100)",
        "100 < width <= 300",
        "300 > width != height",
        "label not in [0]",
        "label in {0, 2}",
        "label in ()",
        "width in (1.5, 300)",
        "key >= 'train-000000200'",
        "'train-000000200' > key",
        "width > -1 and +5 < height",
        "width > 99999999999 or label == 2",
        "width > height",
        "key in ('train-000000007', 'x')",
        "width == width",
        "label == 0.0 or label > 1.5",
    ],
)
def test_means_what_it_says(table, text):
    assert kept(table, text) == by_hand(text)


def test_classes_by_name(table):
    labels = COLUMNS["label"]
    assert kept(table, "label == 'dog'") == (labels == 1).tolist()
    assert kept(table, "label in ('cat', 2)") == (labels != 1).tolist()
    assert kept(table, "label not in ('sea lion',)") == (labels != 2).tolist()
    schema = index.schema(table)
    words = parse("label in ('felis', 'b')", schema, ["a", "b"], ["felis", "b"]).expression
    assert words.equals(parse("label in (0, 1)", schema).expression)
    with pytest.raises(BadArgument, match="no class 'crane'"):  # two classes are called so
        parse("label == 'crane'", schema, ["a", "b"], ["crane", "crane"])


def test_empty_columns_meet_no_comparison(table):
    scores = COLUMNS["score"]
    assert kept(table, "score is None") == [each is None for each in scores]
    assert kept(table, "score is not None") == [each is not None for each in scores]
    for text in (
        "score > 50",
        "not score <= 50",
        "score not in (1, 2) and score > 50",
        "not score in (1,) and score > 50",
    ):
        assert kept(table, text) == [each is not None and each > 50 for each in scores]
    assert kept(table, "not source in ('n1/1.jpg',)") == [s is not None and s != "n1/1.jpg" for s in COLUMNS["source"]]


def test_row_groups_that_cannot_match_are_not_read(table, tmp_path):
    """Bytes of the other groups' column chunks are spoiled, and the answer is right."""
    schema, spoiled = index.schema(table), tmp_path / "spoiled.parquet"
    data = bytearray(table.read_bytes())
    with pq.ParquetFile(table) as parquet:
        for group in range(1, parquet.num_row_groups):
            chunk = parquet.metadata.row_group(group).column(0)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            data[start : start + 8] = b"\xff" * 8
    spoiled.write_bytes(data)
    assert kept(spoiled, "key < 'train-000000010'") == [row < 10 for row in range(ROWS)]
    assert parse("width > 3 and label == 1", schema).columns == ("label", "width")


NUMBERS = st.sampled_from(["label", "width", "height"])
LITERALS = st.integers(-5, 500).map(str)
ATOMS = st.one_of(
    st.builds("{} {} {}".format, NUMBERS, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), LITERALS | NUMBERS),
    st.builds("{} {} ({}, {})".format, NUMBERS, st.sampled_from(["in", "not in"]), LITERALS, LITERALS),
    st.builds("{} < {} <= {}".format, LITERALS, NUMBERS, LITERALS),
)
FILTERS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(text=FILTERS)
def test_any_filter_agrees_with_python(table, text):
    assert kept(table, text) == by_hand(text)
    assert canonical(canonical(text)) == canonical(text)
    assert kept(table, canonical(text)) == by_hand(text)


def test_spacing_and_quotes_do_not_matter():
    assert canonical(' label   in(1,2) and (source=="a") ') == "label in (1, 2) and source == 'a'"


REFUSED = {
    "labl == 3": "no column labl; did you mean label? the columns are key, source, label",
    "zzz == 3": "no column zzz; the columns are key",
    "label = 3": "write == to compare",
    "label == 'ct'": "no class 'ct'; did you mean 'cat'?",
    "label > 'cat'": "classes have no order",
    "width == 'x'": "width holds numbers, 'x' is not",
    "key == 3": "key holds text, 3 is not; write key == '3'",
    "key in ('a', 3)": "key holds text, 3 is not",
    "width > key": "width holds int, key holds text",
    "label": "label stands alone; compare it: label == ...",
    "label == 1 and width": "width stands alone",
    "1 < 2": "names no column",
    "label in 1": "in needs a column and a list",
    "1 in label": "in needs a column and a list",
    "label == None": "write label is None",
    "label is 3": "is takes None only",
    "label == True": "True is no number, text or column",
    "label == [1]": "is no number, text or column",
    "label == 1j": "is no number, text or column",
    "label == -'x'": "is no number, text or column",
    "label == f'{width}'": "is no number, text or column",
    "label.real == 1": "names no column",
    "__import__('os').getcwd()": "is no comparison",
    "(lambda: 1)() == label": "is no number, text or column",
    "[label for label in (1,)]": "is no comparison",
    "(label := 1) == 1": "names no column",
    "label & 1": "is no comparison",
    "label if label else 1": "is no comparison",
    "label == 10000000000000000000": "larger than any number",
    "width >": "is no expression",
    "label == 1; label == 2": "is no expression",
    "": "is no expression",
    "label == 1\0": "is no expression",
    r"key == '\ud800'": "half of a surrogate pair",
    r"key in ('a', '\udfff')": "half of a surrogate pair",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_filter_is_refused_in_one_line(table, text):
    with pytest.raises(BadArgument) as caught:
        parse(text, index.schema(table), CLASSES)
    assert REFUSED[text] in str(caught.value) and "\n" not in str(caught.value).replace("\\n", "")
    assert caught.value.name == "where" and caught.value.exit_code == 2


@pytest.mark.parametrize(
    "text",
    [
        "(" * 5000 + "label == 1" + ")" * 5000,
        "not " * 5000 + "label == 1",
        "not " * 150 + "label == 1",
        "x" * 70_000,
        3,
    ],
    ids=["parentheses", "nots", "some nots", "long", "number"],
)
def test_what_is_too_much_is_refused(table, text):
    with pytest.raises(BadArgument) as caught:
        parse(text, index.schema(table))
    assert len(str(caught.value)) < 400


def test_long_lists_and_long_chains_work(table):
    many = f"label in ({', '.join(map(str, range(3000)))})"
    assert all(kept(table, many))
    chain = " or ".join(f"width == {n}" for n in range(1, 500))
    assert kept(table, chain) == [1 <= width < 500 for width in COLUMNS["width"]]


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="label width()=<>in not and or None'1.,[]{}+-*/:\\\n#@~é", max_size=40))
def test_nothing_but_a_bad_argument_comes_out(text):
    schema = pa.schema([("label", pa.int64()), ("width", pa.int32())])
    try:
        parse(text, schema, CLASSES)
    except BadArgument:
        pass
