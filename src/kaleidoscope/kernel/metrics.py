"""Figures for Prometheus that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class Figures(Collector):
    """What was read, for a registry to collect."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """The figures."""
        return self._metrics
