"""Kernels that cannot be had here are done without, and their errors are not all the same."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch

from datahub.tensor.fused.launching import Launcher


def broken() -> None:
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")


def test_what_cannot_be_compiled_is_warned_of_once():
    launcher, calls = Launcher(), []
    assert launcher.made(lambda: calls.append(1), "cuda", None)
    with pytest.warns(RuntimeWarning, match=r"by torch, many times slower \(RuntimeError: Failed to find C compiler"):
        assert not launcher.made(broken, "cuda", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not launcher.made(lambda: calls.append(2), "cuda", None)
    assert calls == [1] and "C compiler" in str(launcher.obstacle) and "more" not in str(launcher.obstacle)


def test_other_devices_launch_nothing_unless_told_to():
    launcher, calls = Launcher(), []
    assert not launcher.made(lambda: calls.append(1), "cpu", None)
    assert not launcher.made(lambda: calls.append(2), "cuda", False)
    assert launcher.made(lambda: calls.append(3), "cpu", True) and calls == [3]
    with pytest.raises(RuntimeError, match="C compiler"):
        launcher.made(broken, "cuda", True)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("Triton Error [CUDA]: out of memory")])
def test_memory_that_runs_out_is_no_reason_to_do_without(error):
    launcher = Launcher()

    def full() -> None:
        raise error

    with pytest.raises(type(error)):
        launcher.made(full, "cuda", None)
    assert launcher.obstacle is None


def test_threads_launch_one_at_a_time():
    launcher, inside, most = Launcher(), [0], [0]
    meet = threading.Barrier(4, timeout=10)

    def call() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        entered.wait(0.01)
        inside[0] -= 1

    def work() -> None:
        meet.wait()
        launcher.made(call, "cuda", True)

    entered = threading.Event()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [1] and inside == [0]
