"""What a server counts and times, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

import prometheus_client as prometheus

from tenfold import __version__
from tenfold.serving.pool import Figures

prometheus.disable_created_metrics()  # a time beside each counter, which nobody asks for

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics(Figures):
    """One registry a server. ``say`` is told what happens to workers."""

    def __init__(self, say: Callable[[str], None] = lambda message: None) -> None:
        self.registry = registry = prometheus.CollectorRegistry()
        self._say = say

        def counter(name: str, about: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(f"tenfold_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> prometheus.Gauge:
            return prometheus.Gauge(f"tenfold_{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> prometheus.Histogram:
            return prometheus.Histogram(f"tenfold_{name}", about, labels, buckets=buckets, registry=registry)

        self.requests = counter("requests", "Requests that were answered.", "route", "status", "model")
        self.refusals = counter("refusals", "Requests that were not answered as asked.", "reason")
        self.pictures = counter("pictures", "Pictures: answered, unknown, or unreadable.", "model", "outcome")
        self.restarts = counter("worker_restarts", "Workers that ended unasked and were replaced.")
        self.reloads = counter("reloads", "Times the models were to be taken up anew.", "outcome")
        self.seconds = histogram("request_seconds", "From a request's headers to its answer.", _SECONDS, "route")
        self.stages = histogram(
            "stage_seconds", "Parts of a request: receive, wait, decode, compute.", _SECONDS, "stage"
        )
        self.batches = histogram("batch_size", "Requests that share one call of the model.", _BATCHES)
        self.queue = gauge("queue_depth", "Requests that wait for a worker.")
        self.memory = gauge("queue_bytes", "Bytes of all requests under way.")
        self.workers = gauge("workers", "Workers that answer.")
        self.connections = gauge("connections", "Connections that are open.")
        self.models = gauge("model_info", "1 for each model that is served.", "model", "version")
        for stage in ("receive", "wait", "decode", "compute"):
            self.stages.labels(stage)
        prometheus.ProcessCollector(registry=registry)
        prometheus.Info("tenfold_build", "The server's version.", registry=registry).info({"version": __version__})

    def batch(self, pictures: int) -> None:
        self.batches.observe(pictures)

    def restarted(self) -> None:
        self.restarts.inc()

    def note(self, message: str) -> None:
        self._say(message)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return prometheus.generate_latest(self.registry)
