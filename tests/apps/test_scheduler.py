"""What the scheduler says of itself: its rounds and the rooms' alarms, the worst first."""

from __future__ import annotations

from kaleidoscope.apps.scheduler import worst
from kaleidoscope.library.service import Alarm
from kaleidoscope.ops.service import Health

FINE, FAILING = Health("OK", "waiting"), Health("WARNING", "a job failed")
DAMAGED, FROZEN = Alarm("WARNING", "damaged"), Alarm("ERROR", "frozen")


def test_the_worst_is_told_with_every_cause() -> None:
    assert worst(FINE, []) == FINE and worst(FAILING, []) == FAILING
    assert worst(FINE, [DAMAGED]) == Health("WARNING", "damaged")
    assert worst(FINE, [DAMAGED, FROZEN]) == Health("ERROR", "damaged; frozen")
    assert worst(FAILING, [FROZEN]) == Health("ERROR", "frozen; a job failed")
