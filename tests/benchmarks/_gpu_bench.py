"""The device that `bench_gpu` measures, and how it measures."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

LONG = 3.0
"""Seconds that a round takes at least."""


class Bench:
    """The options, and what several rows need."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.small, self.work, self.rounds = bool(options.small), options.work, options.rounds
        self.device = torch.device(options.device)
        if self.device.type == "cuda":
            self.device = torch.device("cuda", self.device.index or 0)
        self.batch = 4 if self.small else 256

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu, in rehearsal"

    def where(self, share: float | None = None) -> Any:
        """What `StreamingLoader` gets as its device."""
        if self.device.type == "cpu":
            from datahub.tensor.device.rehearsal import Rehearsal

            return Rehearsal()
        from datahub.loader.device import CudaOptions

        return CudaOptions(self.device.index, "auto" if share is None else "nvimgcodec", share)

    def decoder(self) -> str | None:
        """What decodes JPEGs on the device, in words."""
        from datahub.loader.device import backend_of

        backend = backend_of(self.where(), {})
        return None if backend is None else backend.decodes()

    def settings(self) -> Any:
        from datahub.core.settings import Settings

        return Settings(home=self.work / "home")

    def copied(self) -> float:
        """Bytes a second, read and written, of a copy from the device to itself."""
        source = torch.empty(1 << (16 if self.small else 30), dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / self.seconds(lambda: target.copy_(source), 20)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(self, batches: Callable[[], Iterable[torch.Tensor]], long: float = LONG) -> dict[str, Any]:
        """Images a second over rounds of whole passes, the first of which warms up; the median and all of them."""
        rates = []
        for _ in range(self.rounds + 1):
            self.wait()
            began, seen = time.perf_counter(), 0
            while not seen or (time.perf_counter() - began < long and not self.small):
                for images in batches():
                    seen += len(images)
            self.wait()
            rates.append(seen / (time.perf_counter() - began))
        return {"images_s": round(statistics.median(rates[1:])), "rounds": [round(each) for each in rates[1:]]}

    def seconds(self, call: Callable[[], Any], count: int) -> float:
        """Seconds of one ``call``, the median of ``count`` after three."""
        if self.device.type == "cpu":
            times = []
            for _ in range(count):
                began = time.perf_counter()
                call()
                times.append(time.perf_counter() - began)
            return statistics.median(times)
        for _ in range(3):
            call()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
        for begin, end in events:
            begin.record()
            call()
            end.record()
        self.wait()
        return statistics.median(begin.elapsed_time(end) for begin, end in events) / 1000
