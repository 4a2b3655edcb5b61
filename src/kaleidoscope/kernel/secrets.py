"""The secret that our own services show each other, made at first start and never logged."""

from __future__ import annotations

import hmac
import os
import secrets

from kaleidoscope.kernel.settings import data_dir

HEADER = "X-Kaleidoscope-Secret"


def service_secret() -> str:
    """The service secret: `KALEIDOSCOPE_SERVICE_SECRET`, else `secrets/service` in the data folder.

    Made with 256 random bits at first use; readable by its owner alone.
    """
    given = os.environ.get("KALEIDOSCOPE_SERVICE_SECRET")
    if given:
        return given
    path = data_dir() / "secrets" / "service"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f"service.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # the first of two that start together wins
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def is_service_secret(shown: str | None) -> bool:
    """Whether a caller showed the service secret (compared in constant time)."""
    return shown is not None and hmac.compare_digest(shown.encode(), service_secret().encode())
