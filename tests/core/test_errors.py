from __future__ import annotations

import errno
import inspect
import pickle
import subprocess
import sys

import numpy as np
import pytest

from datahub.core import errors
from datahub.core.errors import DatahubError, Problem


def leaves() -> list[type[DatahubError]]:
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, DatahubError)]
    return [each for each in found if "__init__" in vars(each) and each is not DatahubError]


def build(kind: type[DatahubError]) -> DatahubError:
    arguments = []
    for parameter in list(inspect.signature(kind).parameters.values()):
        if parameter.default is not inspect.Parameter.empty:
            continue
        annotation = str(parameter.annotation)
        if "Problem" in annotation:
            arguments.append([Problem("files[0].md5", "is wrong")])
        elif "DatahubError" in annotation:
            arguments.append([errors.HttpError("http://x", 503)])
        elif "Sequence" in annotation:
            arguments.append(["one", "two"])
        else:
            arguments.append({"int": 7, "float": 1.5}.get(annotation, "word"))
    return kind(*arguments)


@pytest.mark.parametrize("kind", leaves(), ids=lambda kind: kind.__name__)
def test_every_leaf_is_one_line_keeps_its_facts_and_survives_pickling(kind: type[DatahubError]) -> None:
    error = build(kind)
    assert "\n" not in str(error) and str(error)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again).keys() == vars(error).keys()
    assert again.exit_code == error.exit_code in (1, 2, 3, 4, 5, 6, 7)


@pytest.mark.parametrize(
    ("status", "retryable"), [(403, False), (404, False), (408, True), (429, True), (500, True), (503, True)]
)
def test_http_errors_know_whether_a_retry_helps(status: int, retryable: bool) -> None:
    assert errors.HttpError("http://x/y", status).retryable is retryable


def test_all_mirrors_failing_by_digest_is_a_verification_failure() -> None:
    wrong = errors.DigestMismatch("f", "sha256:a", "sha256:b")
    assert errors.AllMirrorsFailed("f", [wrong]).exit_code == 3
    assert errors.AllMirrorsFailed("f", [wrong, errors.HttpError("u", 500)]).exit_code == 4


def test_a_value_is_shown_on_one_line_and_not_all_of_a_long_one() -> None:
    assert str(errors.BadArgument("size", [1, "a  b"], "is odd")) == "size=[1, 'a  b']: is odd"
    rows = errors.BadArgument("p", np.zeros((3, 3)), "is no number")
    assert str(rows) == "p=array([[0., 0., 0.], [0., 0., 0.], [0., 0., 0.]]): is no number"
    long = errors.BadArgument("part", list(range(10_000)), "is long", "cut it")
    assert len(str(long)) < 400 and str(long).endswith("…: is long; cut it") and len(long.value) == 10_000


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, errors.DiskFull), (errno.EACCES, errors.NotWritable), (errno.EIO, errors.NotReadable)],
)
def test_os_errors_are_translated(number: int, kind: type[DatahubError]) -> None:
    found = errors.from_oserror(OSError(number, "why"), "/a/b")
    assert type(found) is kind
    assert found.exit_code == 5
    assert "/a/b" in str(found)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EISDIR, errno.EEXIST])
def test_what_was_being_done_is_said(number: int) -> None:
    met = OSError(number, "why")
    assert str(errors.from_oserror(met, "/a/b", writing=True)).startswith("cannot write /a/b: ")
    assert str(errors.from_oserror(met, "/a/b", writing=False)).startswith("cannot read /a/b: why")


def test_callers_import_them_from_the_facade() -> None:
    code = "from datahub.errors import BadArgument; import datahub; assert datahub.errors.BadArgument is BadArgument"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_the_drawn_tree_names_every_leaf() -> None:
    drawn = errors.__doc__ or ""
    assert [kind.__name__ for kind in leaves() if kind.__name__ not in drawn] == []
