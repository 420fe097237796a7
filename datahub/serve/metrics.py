"""What a server counts, for Prometheus. With several processes each counts into files of a folder that all share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus-client is told the folder; it must be set before it is first imported."""
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
JOBS = 256
"""Jobs that are counted by their names; further ones together, as ``other``."""
TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one process. Safe in threads."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Callable[..., Counter]:
            return cache(Counter(name, what, labels, registry=self.registry).labels)

        self._requests = counter("datahub_requests", "Requests answered.", "route", "method", "status")
        self._seconds = cache(
            Histogram(
                "datahub_request_seconds",
                "From a request's headers to the end of its answer.",
                ("route",),
                buckets=SECONDS,
                registry=self.registry,
            ).labels
        )
        self._sent = counter("datahub_sent_bytes", "Bytes of datasets sent to clients.", "dataset")
        self._hits = counter("datahub_hits", "Pieces of bodies that waited for no origin.", "dataset")
        self._misses = counter("datahub_misses", "Pieces of bodies that waited for an origin.", "dataset")
        self._verified = counter("datahub_verified", "Pieces of the store's files that were verified first.", "dataset")
        self._fetched = counter("datahub_origin_bytes", "Bytes received from origins.", "dataset")
        self._fetches = counter("datahub_origin_fetches", "Blocks asked of origins.", "dataset", "result")
        self._jobs = counter("datahub_job_bytes", "Bytes sent for each job.", "job")
        self._job_hits = counter("datahub_job_hits", "Pieces for each job that waited for no origin.", "job")
        self._job_misses = counter("datahub_job_misses", "Pieces for each job that waited for an origin.", "job")
        self._prefetched = counter("datahub_prefetched_bytes", "Bytes brought before a job asked for them.", "job")
        self._waited = counter("datahub_job_wait_seconds", "What each job's requests waited for blocks.", "job")
        self._scrubbed = counter("datahub_scrubbed_bytes", "Bytes that the scrubber verified again.", "dataset")
        self._rotten = counter("datahub_scrubbed_wrong", "Blocks that the scrubber found damaged.", "dataset")
        self._refused = counter("datahub_refused", "Requests refused before they were looked into.", "reason")
        self._known: set[str] = set()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests(route, method, str(status)).inc()
        self._seconds(route).observe(seconds)

    def sent(self, dataset: str, count: int, job: str, waited: float) -> None:
        self._sent(dataset).inc(count)
        if job:
            name = self._job(job)
            self._jobs(name).inc(count)
            if waited:
                self._waited(name).inc(waited)

    def asked(self, dataset: str, job: str, *, hit: bool) -> None:
        """A piece of a body: a hit if no origin was waited for, be it that its block had to be verified or opened."""
        (self._hits if hit else self._misses)(dataset).inc()
        if job:
            (self._job_hits if hit else self._job_misses)(self._job(job)).inc()

    def prefetched(self, job: str, count: int) -> None:
        self._prefetched(self._job(job)).inc(count)

    def verified(self, dataset: str) -> None:
        """A piece of a file of the server's own store was verified before it was sent."""
        self._verified(dataset).inc()

    def fetched(self, dataset: str, count: int) -> None:
        self._fetched(dataset).inc(count)
        self._fetches(dataset, "received").inc()

    def failed(self, dataset: str) -> None:
        self._fetches(dataset, "failed").inc()

    def scrubbed(self, dataset: str, count: int, *, wrong: bool) -> None:
        self._scrubbed(dataset).inc(count)
        if wrong:
            self._rotten(dataset).inc()

    def refused(self, reason: str) -> None:
        self._refused(reason).inc()

    def _job(self, job: str) -> str:
        if job not in self._known:
            if len(self._known) >= JOBS:
                return "other"
            self._known.add(job)
        return job


class Gauges(Collector):
    """What is read when it is asked for."""

    def __init__(self, read: Callable[[], dict[str, tuple[str, float]]]) -> None:
        self._read = read

    def collect(self) -> list[GaugeMetricFamily]:
        return [GaugeMetricFamily(name, what, value) for name, (what, value) in self._read().items()]


def exposition(metrics: Metrics, gauges: Gauges) -> bytes:
    """The numbers of all processes, as Prometheus reads them."""
    registry = CollectorRegistry()
    registry.register(gauges)
    return generate_latest(_everybodys(metrics)) + generate_latest(registry)


def counted(metrics: Metrics) -> dict[str, dict[str, float]]:
    """The counters of all processes that are for each dataset or each job: name -> dataset or job -> value."""
    found: dict[str, dict[str, float]] = {}
    for family in _everybodys(metrics).collect():
        for sample in family.samples:
            if set(sample.labels) <= {"dataset"} or set(sample.labels) == {"job"}:
                found.setdefault(sample.name, {})["".join(sample.labels.values())] = sample.value
    return found


def _everybodys(metrics: Metrics) -> CollectorRegistry:
    """With several processes, what their files say."""
    if not os.environ.get(FOLDER):
        return metrics.registry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry
