"""What the webhook counts. Of agent.webhook the only module that knows prometheus_client."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_REVIEW_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
"""A pod of some KB takes about a millisecond; one of an API server's 3 MB some ten."""


class WebhookMetrics:
    """One registry of its own: two in one process do not meet."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._reviews = Counter(
            "headgate_webhook_reviews", "Pods that API servers asked about.", ("outcome",), registry=registry
        )
        self._took = Histogram(
            "headgate_webhook_review_seconds", "From a review's last byte to its answer.",
            registry=registry, buckets=_REVIEW_BUCKETS_S,
        )  # fmt: skip
        self._ends = Gauge(
            "headgate_webhook_certificate_end_seconds", "When it ends, since the epoch; 0 before there is one.",
            ("certificate",), registry=registry,
        )  # fmt: skip
        self._trusted = Gauge(
            "headgate_webhook_trusted", "1 while API servers are told to believe the certificate.", registry=registry
        )

    def exposition(self) -> bytes:
        return generate_latest(self._registry)

    def reviewed(self, outcome: str, seconds: float) -> None:
        self._reviews.labels(outcome).inc()
        self._took.observe(seconds)

    def certificates(self, serving_ends_s: float | None, authority_ends_s: float | None, *, trusted: bool) -> None:
        self._ends.labels("serving").set(serving_ends_s or 0.0)
        self._ends.labels("authority").set(authority_ends_s or 0.0)
        self._trusted.set(trusted)
