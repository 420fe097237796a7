"""What every backend promises, and that the one in memory notices what breaks the promise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from datahub.tensor.decode import decode_image
from datahub.tensor.device.cargo import Cargo
from datahub.tensor.device.lanes import Backend, Undecodable, kept, on_device
from datahub.tensor.device.rehearsal import VOID, OutOfOrder, Rehearsal
from tests.tensor.images import encoded, noise

JPEGS = [encoded(noise(40 + row, 56 - row, seed=row), "JPEG", quality=95) for row in range(4)]
LEVELS = 12
"""Two JPEG decoders may differ by rounding, and more where one interpolates chroma and the other repeats it."""


def stage(lane, images) -> list[torch.Tensor]:
    return Cargo(images, None).load(lane)


class Promises:
    """Subclasses give the backend."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        raise NotImplementedError

    def test_what_is_enqueued_is_received(self, backend):
        lane = backend.lane()
        staged = lane.stage(100)
        staged.copy_(torch.arange(100))
        ticket = lane.enqueue(lambda: {"a": on_device(staged, backend.device), "n": 3})
        found = ticket.receive()
        assert found["n"] == 3 and found["a"].device == backend.device
        assert torch.equal(found["a"].cpu(), torch.arange(100, dtype=torch.uint8))

    def test_staged_memory_is_void_once_it_is_asked_for_again(self, backend):
        """Nothing that was copied from it changes when it is written anew."""
        lane, tickets = backend.lane(), []
        for number in range(5):
            staged = lane.stage(1000 + 100 * number)
            staged.fill_(number)
            tickets.append(lane.enqueue(lambda staged=staged: on_device(staged, backend.device) + 1))
        for number, ticket in enumerate(tickets):
            assert (ticket.receive() == number + 1).all()

    def test_work_of_a_lane_is_done_in_order(self, backend):
        lane = backend.lane()
        total = lane.enqueue(lambda: torch.zeros(1000, device=backend.device)).receive()
        tickets = [lane.enqueue(lambda n=n: total.mul_(2).add_(n)) for n in range(1, 6)]
        tickets[-1].receive()
        assert (total == 57).all()

    def test_errors_of_work_are_raised(self, backend):
        lane = backend.lane()
        with pytest.raises(ZeroDivisionError):
            lane.enqueue(lambda: 1 // 0).receive()
        assert lane.enqueue(lambda: 5).receive() == 5
        lane.drain()

    def test_decoding(self, backend):
        lane = backend.lane()
        for channels in (1, 3):
            found = lane.decode(stage(lane, JPEGS), channels)
            found = lane.enqueue(lambda found=found: [each.clone() for each in found]).receive()
            for image, data in zip(found, JPEGS, strict=True):
                wanted = decode_image(data, channels)
                assert image.shape == wanted.shape and image.dtype == torch.uint8
                assert (image.cpu().int() - wanted.int()).abs().float().mean() < LEVELS

    def test_what_is_no_jpeg_is_undecodable(self, backend):
        lane = backend.lane()
        with pytest.raises(Undecodable):
            lane.decode(stage(lane, [JPEGS[0], b"\xff\xd8 nothing"]), 3)
        assert len(lane.decode(stage(lane, JPEGS), 3)) == 4

    def test_what_is_kept_may_be_read_by_every_lane(self, backend, monkeypatch):
        from datahub.tensor.device import lanes

        monkeypatch.setattr(lanes, "PIECE", 1000)
        array = np.arange(5000, dtype=np.int32).reshape(50, 100)
        there = kept(array, backend.lane(), backend.device)
        other = backend.lane()
        assert torch.equal(other.enqueue(lambda: there + 1).receive().cpu(), torch.from_numpy(array) + 1)

    def test_cargo_arrives(self, backend):
        lane = backend.lane()
        tree = {
            "image": torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
            "rest": (torch.tensor([True, False, True]), "text", [torch.arange(6.0)[::2], torch.empty(0)]),
        }
        cargo = Cargo([b"abc", b"", b"xyz"], tree, numbers=4)
        assert [bytes(each.numpy()) for each in cargo.load(lane)] == [b"abc", b"", b"xyz"]
        found = lane.enqueue(lambda: cargo.unload(backend.device)).receive()
        assert torch.equal(found["image"].cpu(), tree["image"]) and found["image"].stride() == tree["image"].stride()
        flags, text, (floats, none) = found["rest"]
        assert flags.tolist() == [True, False, True] and text == "text"
        assert floats.tolist() == [0.0, 2.0, 4.0] and none.shape == (0,)
        numbers = np.arange(4).reshape(2, 2)
        for given in (numbers, np.arange(9)):  # there is room for the first alone
            there = lane.enqueue(lambda given=given: cargo.upload(given, backend.device)).receive()
            assert np.array_equal(there.cpu().numpy(), given)


class TestRehearsal(Promises):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        yield Rehearsal()

    def test_work_is_done_no_earlier_than_it_must(self, backend):
        lane, done = backend.lane(), []
        first, second = lane.enqueue(lambda: done.append(1)), lane.enqueue(lambda: done.append(2))
        assert not done and lane.pending == 2
        first.receive()
        assert done == [1]
        lane.drain()
        second.receive()
        assert done == [1, 2]

    def test_decoding_over_queued_work_is_noticed(self, backend):
        lane = backend.lane()
        staged = stage(lane, JPEGS)
        lane.enqueue(lambda: None)
        with pytest.raises(OutOfOrder, match="drain first"):
            lane.decode(staged, 3)

    def test_decoding_what_is_not_staged_is_noticed(self, backend):
        lane = backend.lane()
        with pytest.raises(OutOfOrder, match="staged"):
            lane.decode([torch.frombuffer(bytearray(JPEGS[0]), dtype=torch.uint8)], 3)

    def test_who_still_reads_void_memory_sees_it(self, backend):
        lane = backend.lane()
        staged = lane.stage(8)
        staged.fill_(1)
        leaked = lane.enqueue(lambda: staged[:4]).receive()  # no copy
        lane.stage(8)
        assert (leaked == VOID).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestCuda(Promises):
    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        from datahub.loader.device import backend_of

        made = backend_of("cuda", {})
        assert made is not None and made.decodes() is not None
        yield made
        torch.cuda.synchronize()

    def test_receiving_orders_the_callers_stream(self, backend):
        """The caller's stream waits; nobody's host does."""
        lane = backend.lane()
        for _ in range(20):
            ticket = lane.enqueue(lambda: _late(backend.device))
            assert (ticket.receive() * 2 == 2).all()

    def test_decoding_does_not_write_over_what_queued_work_reads(self, backend):
        """The trap of nvJPEG's hardware engine (pytorch/vision pull 9606): 134 of 200 without draining the lane."""
        lane, wrong = backend.lane(), 0
        images = [encoded(noise(512, 512, seed=row), "JPEG") for row in range(8)]
        for _ in range(50):
            ticket = lane.enqueue(lambda: _sums_of_memory_let_go(backend.device))
            decoded = lane.decode(stage(lane, images), 3)
            wrong += int((ticket.receive() != 512 * 512 * 3 * 7).any())
            lane.enqueue(lambda decoded=decoded: [each.float().mean() for each in decoded]).receive()
        assert not wrong

    def test_batches_that_were_let_go_are_not_written_over(self, backend):
        """A caller's stream still reads a batch whose tensors it has dropped."""
        lane, sums = backend.lane(), []
        for number in range(30):
            batch = lane.enqueue(lambda n=number: torch.full((1 << 20,), n % 200, device=backend.device)).receive()
            torch.cuda._sleep(2_000_000)
            sums.append(batch.sum(dtype=torch.int64))
            del batch
        torch.cuda.synchronize()
        assert [int(each) for each in sums] == [(number % 200) << 20 for number in range(30)]


def _late(device: torch.device) -> torch.Tensor:
    made = torch.zeros(1 << 20, device=device)
    torch.cuda._sleep(5_000_000)
    return made.add_(1)


def _sums_of_memory_let_go(device: torch.device) -> torch.Tensor:
    """Sums that are queued behind a long wait, over tensors of the decoder's sizes that are freed at once."""
    tensors = [torch.full((3, 512, 512), 7, dtype=torch.uint8, device=device) for _ in range(8)]
    torch.cuda._sleep(50_000_000)
    return torch.stack([each.sum(dtype=torch.int64) for each in tensors])
