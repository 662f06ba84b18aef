"""Metrics for Prometheus.

What OpenTelemetry has names for (semantic conventions for generative AI, metrics of servers) has
them, with the conventions' bucket boundaries; the rest begins with `cloudft_`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloudft.serving.engine import Engine, EngineEnd
from cloudft.serving.http.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Sequence

LABELS = ("gen_ai_operation_name", "gen_ai_request_model")
FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
PER_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION_BUCKETS = tuple(0.01 * 2**power for power in range(14))
TOO_MANY = 429


class ServerMetrics:
    """The counters and histograms of one server, and what its engine says of itself."""

    def __init__(self, engine: Engine) -> None:
        # The time at which each series began would double their number.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(engine))
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "cloudft_requests",
            "Requests by HTTP status; 499 are those whose client went away.",
            (*LABELS, "status"),
            registry=self.registry,
        )
        self._refusals = Counter(
            "cloudft_queue_refusals",
            "Requests refused because too many were waiting.",
            registry=self.registry,
        )
        self._first_token = self._histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a request to the first token of an answer.",
            FIRST_TOKEN_BUCKETS,
        )
        self._per_token = self._histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time per token of an answer after its first.",
            PER_TOKEN_BUCKETS,
        )
        self._duration = self._histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a request to the end of its response.",
            DURATION_BUCKETS,
        )

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, LABELS, buckets=buckets, registry=self.registry)

    def count_request(self, exchange: Exchange) -> None:
        """Count a request that has ended."""
        labels = (exchange.operation, exchange.model)
        self._requests.labels(*labels, str(exchange.status)).inc()
        if exchange.status == TOO_MANY:
            self._refusals.inc()
        if exchange.model:
            self._duration.labels(*labels).observe(time.perf_counter() - exchange.started)

    def observe_answer(self, exchange: Exchange, end: EngineEnd, seconds: float) -> None:
        """Measure an answer that took so many seconds, waiting included."""
        labels = (exchange.operation, exchange.model)
        if end.answer.tokens < 1:
            return
        self._first_token.labels(*labels).observe(end.first_token_s)
        if end.answer.tokens > 1:
            rest = max(seconds - end.first_token_s, 0.0)
            self._per_token.labels(*labels).observe(rest / (end.answer.tokens - 1))

    def to_text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Reads the engine's own figures when the metrics are fetched."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: registering must not read the engine."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield the engine's figures."""
        stats = self._engine.stats()
        gauges = {
            "cloudft_requests_running": ("Answers in the batch now.", stats.running),
            "cloudft_requests_waiting": ("Requests that wait for the batch.", stats.waiting),
            "cloudft_cached_tokens": (
                "Tokens whose keys and values are kept.",
                stats.cached_tokens,
            ),
        }
        if stats.resident_bytes is not None:
            text = "Memory of the engine's process."
            gauges["cloudft_engine_resident_memory_bytes"] = (text, stats.resident_bytes)
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)
        counters = {
            "cloudft_prompt_tokens": ("Tokens of prompts.", stats.prompt_tokens),
            "cloudft_shared_prompt_tokens": (
                "Tokens of prompts that began as another one, and were not computed.",
                stats.shared_tokens,
            ),
            "cloudft_generation_tokens": ("Tokens of answers.", stats.generated_tokens),
            "cloudft_engine_steps": ("Steps of the batch.", stats.steps),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(name, text, value)
