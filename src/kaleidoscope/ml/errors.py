"""What can be wrong with models: their packs, their files, their weights."""

from __future__ import annotations

from kaleidoscope.kernel.errors import KaleidoscopeError


class ModelError(KaleidoscopeError):
    """A model pack cannot be used."""

    code, status, exit_code = "model", 500, 12


class UnknownPack(ModelError):
    """No pack of this name is in the catalogue or in the data folder."""

    code, status, exit_code = "unknown-pack", 404, 3


class NotPulled(ModelError):
    """The pack is known and its files are not on this machine."""

    code = "pack-not-pulled"


class ChecksumMismatch(ModelError):
    """A model file is not the file that the catalogue names; it is never loaded."""

    code = "checksum-mismatch"


class BadWeights(ModelError):
    """A file of weights cannot be read, or holds another architecture."""

    code = "bad-weights"


class BadPack(ModelError):
    """A pack's description makes no sense, or its networks are of no kind known here."""

    code, status, exit_code = "bad-pack", 422, 2


class LicenceNotAccepted(ModelError):
    """The pack's licence forbids commercial use, and nobody has accepted that."""

    code, status, exit_code = "licence-not-accepted", 403, 5


class DownloadFailed(ModelError):
    """A model file could not be fetched."""

    code, status, exit_code = "download-failed", 502, 7
