"""What a CUDA lane asks of CUDA, and in which order, written down by a stand-in for torch's streams and events."""

from __future__ import annotations

import re
from contextlib import contextmanager

import pytest
import torch

from datahub.core.errors import DeviceOutOfMemory
from datahub.tensor.device.cuda import Cuda
from datahub.tensor.device.decoders import TorchvisionDecoder
from datahub.tensor.device.lanes import Undecodable


class Decodes:
    name = "a stand-in"

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def decode(self, encoded, channels, device, stream):
        self._calls.append(f"decode {len(encoded)} on {stream.name}")
        return [torch.zeros((channels, 2, 2), dtype=torch.uint8)]


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    made: list[str] = []
    names = iter("abcdefgh")

    class Stream:
        def __init__(self, device, priority=0):
            assert priority == -1
            self.name = next(names)

        def wait_event(self, event):
            made.append(f"{self.name} waits for {event.after}")

    class Event:
        after = ""

        def __init__(self, blocking):
            assert blocking

        def record(self, stream):
            self.after = stream.name
            made.append(f"event on {stream.name}")

        def synchronize(self):
            made.append(f"host waits for {self.after}")

    @contextmanager
    def entered(what):
        yield

    caller = Stream(None, -1)
    caller.name = "caller"
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: caller)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, pin_memory=False, **more: empty(*size, **more))
    return made


def test_a_batch_on_its_way(calls):
    lane = Cuda(0, Decodes(calls)).lane()
    staged = lane.stage(10)
    assert not calls and len(staged) == 10
    lane.decode([staged], 3)
    ticket = lane.enqueue(lambda: torch.ones(1))
    assert calls == ["event on b", "host waits for b", "decode 1 on b", "event on b", "event on b"]
    assert ticket.receive().item() == 1
    assert calls[5:] == ["caller waits for b"]  # and no host waits for anything
    lane.stage(20)
    assert calls[6:] == ["host waits for b"]


def test_a_lane_is_drained_before_it_decodes(calls):
    lane = Cuda(0, Decodes(calls)).lane()
    staged = lane.stage(4)
    lane.enqueue(lambda: None)
    lane.decode([staged], 1)
    assert calls == ["event on b", "event on b", "host waits for b", "decode 1 on b", "event on b"]


def test_what_failed_is_waited_for_all_the_same(calls):
    lane = Cuda(0, Decodes(calls)).lane()
    with pytest.raises(ZeroDivisionError):
        lane.enqueue(lambda: 1 / 0)
    lane.drain()
    assert calls == ["event on b", "host waits for b"]


def test_what_queued_work_reads_is_kept_until_it_is_done(calls):
    import weakref

    lane = Cuda(0, None).lane()
    read = torch.ones(3)
    alive = weakref.ref(read)
    lane.enqueue(lambda held=read: held.sum())
    del read
    assert alive() is not None
    lane.drain()
    assert alive() is None


@pytest.mark.parametrize(
    ("kind", "message", "said"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nmore", "2.00 GiB"),
        (RuntimeError, "CUDA error: out of memory\nCUDA kernel errors might be ...", "CUDA error"),
        (RuntimeError, "Triton Error [CUDA]: out of memory", "Triton Error"),
    ],
)
def test_memory_that_runs_out(calls, kind, message, said):
    def full():
        raise kind(message)

    with pytest.raises(DeviceOutOfMemory, match="cuda:0 has no memory left .*" + re.escape(said)):
        Cuda(0, None).lane().enqueue(full)


def test_other_errors_of_cuda_stay_what_they_are(calls):
    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        Cuda(0, None).lane().enqueue(broken)


@pytest.mark.parametrize(
    ("message", "raised"),
    [("Error while decoding JPEG images: CUDA out of memory.", RuntimeError), ("bad marker", Undecodable)],
)
def test_what_torchvisions_decoder_says(message, raised):
    decoder = TorchvisionDecoder()

    def fail(encoded, mode, device):
        raise RuntimeError(message)

    decoder._call = fail
    with pytest.raises(raised, match=re.escape(message)):
        decoder.decode([], 3, torch.device("cuda", 0), None)
