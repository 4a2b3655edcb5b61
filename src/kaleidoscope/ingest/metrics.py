"""The five figures of seed 001 for Prometheus, read from the database when they are asked for."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.ingest import queries
from kaleidoscope.kernel.metrics import Figures

COUNTERS = {
    "files_scanned": "Photos and videos that scans have found",
    "files_inserted": "Of these, new rows of the ledger",
    "batches_published": "Batches that the transport has acknowledged",
    "kafka_publish_failures": "Failed tries to publish a batch, whatever the transport",
}


async def read(session: AsyncSession) -> Figures:
    """The figures of this moment."""
    row = await queries.figures(session)
    metrics: list[Metric] = [
        CounterMetricFamily(name, help, value=float(row[name])) for name, help in COUNTERS.items()
    ]
    metrics.append(
        GaugeMetricFamily(
            "avg_batch_time",
            "Seconds from a batch's registration to its publication, over the last thousand",
            value=float(row.avg_batch_time or 0),
        )
    )
    return Figures(metrics)
