"""Services, assets, errors and disks for Prometheus, read when they are asked for."""

from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.ext.asyncio import AsyncSession

from kaleidoscope.kernel.metrics import Figures
from kaleidoscope.ops import service
from kaleidoscope.ops.schemas import Disk, ServiceStatus
from kaleidoscope.ops.schemas import Figures as Counters

COLOURS = {"green": 0, "yellow": 1, "red": 2}


async def read(session: AsyncSession) -> Figures:
    """The figures of this moment."""
    counters = await service.figures(session)
    errors = await service.errors(session)
    failed = GaugeMetricFamily("kaleidoscope_errors", "What failed and is not healed", errors.total)
    return Figures(
        [
            *_of_services(await service.services(session)),
            *_of_assets(counters),
            *_of_disks(counters.disks),
            failed,
        ]
    )


def _of_services(services: list[ServiceStatus]) -> list[Metric]:
    colour = GaugeMetricFamily(
        "kaleidoscope_service_colour", "0 green, 1 yellow, 2 red", labels=["service"]
    )
    age = GaugeMetricFamily(
        "kaleidoscope_service_heartbeat_age_seconds",
        "Since the last heartbeat",
        labels=["service"],
    )
    interval = GaugeMetricFamily(
        "kaleidoscope_service_interval_seconds",
        "Between two heartbeats, as the service promises",
        labels=["service"],
    )
    for one in services:
        colour.add_metric([one.service_name], COLOURS[one.colour])
        age.add_metric([one.service_name], one.age_seconds)
        interval.add_metric([one.service_name], one.interval_seconds)
    return [colour, age, interval]


def _of_assets(counters: Counters) -> list[Metric]:
    assets = counters.assets
    values = {
        "kaleidoscope_assets_secured": ("Assets of the ledger", assets.total),
        "kaleidoscope_assets_bytes": ("Size of their originals", assets.bytes),
        "kaleidoscope_assets_backed_up": ("Assets with a confirmed backup", assets.backed_up),
        "kaleidoscope_assets_thumbnailed": ("Assets with thumbnails", assets.thumbnailed),
        "kaleidoscope_assets_missing": ("Assets whose file is gone", assets.missing),
        "kaleidoscope_assets_with_errors": ("Assets with an error", assets.with_errors),
        "kaleidoscope_assets_waiting": ("Assets that wait for recognition", counters.waiting),
        "kaleidoscope_filed_last_hour": ("Assets of the last hour", counters.filed_last_hour),
        "kaleidoscope_processed_last_hour": (
            "Recognitions of the last hour that ended well",
            counters.processed_last_hour,
        ),
    }
    if counters.inbox_remaining is not None:
        remaining = counters.inbox_remaining
        values["kaleidoscope_inbox_remaining"] = ("Files in the inboxes", remaining)
    return [GaugeMetricFamily(name, says, value) for name, (says, value) in values.items()]


def _of_disks(disks: list[Disk]) -> list[Metric]:
    total = GaugeMetricFamily("kaleidoscope_disk_bytes", "Size of the disk", labels=["folder"])
    free = GaugeMetricFamily("kaleidoscope_disk_free_bytes", "Free on the disk", labels=["folder"])
    days = GaugeMetricFamily(
        "kaleidoscope_disk_days_until_full",
        "If it goes on filling as it did; absent: it does not",
        labels=["folder"],
    )
    for disk in disks:
        total.add_metric([disk.folder], disk.total_bytes)
        free.add_metric([disk.folder], disk.free_bytes)
        if disk.days_until_full is not None:
            days.add_metric([disk.folder], disk.days_until_full)
    return [total, free, days]
