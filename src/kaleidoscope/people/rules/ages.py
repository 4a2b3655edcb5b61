"""What birth dates and the dates of photos tell of who is who."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

YEAR = 365.2425  # days
MARGIN = timedelta(days=365)  # dates of birth and of photos are wrong by a year now and then


def too_early(taken: date, born: date) -> bool:
    """Whether somebody born then cannot be in a photo taken then."""
    return taken < born - MARGIN


def years(day: date) -> float:
    """A day as a point of time in years."""
    return day.toordinal() / YEAR


def too_early_all(taken: NDArray[np.float64], born: float) -> NDArray[np.bool_]:
    """`too_early` for points of time in years; of unknown ones (NaN) nothing can be told."""
    early: NDArray[np.bool_] = taken < born - MARGIN.days / YEAR
    return early
