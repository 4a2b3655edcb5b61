"""Tables of the library: the ledger of media, and what belongs to each of its rows."""

from __future__ import annotations

from kaleidoscope.library.models.assets import MAX_PATH_BYTES, MediaAsset
from kaleidoscope.library.models.copies import BackupCopy, BackupTarget, KeptFile, KnownPlace
from kaleidoscope.library.models.custody import CustodyMove
from kaleidoscope.library.models.dates import (
    AssetPlace,
    CaptureCandidate,
    CorrectedDate,
    DateCorrection,
)
from kaleidoscope.library.models.history import AssetEvent, AssetProblem, ProcessingAttempt

__all__ = [
    "MAX_PATH_BYTES",
    "AssetEvent",
    "AssetPlace",
    "AssetProblem",
    "BackupCopy",
    "BackupTarget",
    "CaptureCandidate",
    "CorrectedDate",
    "CustodyMove",
    "DateCorrection",
    "KeptFile",
    "KnownPlace",
    "MediaAsset",
    "ProcessingAttempt",
]
