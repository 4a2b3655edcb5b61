"""The service secret."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kaleidoscope.kernel.secrets import is_service_secret, service_secret


def test_it_is_made_once_for_its_owner_alone(data_dir: Path) -> None:
    secret = service_secret()
    assert len(secret) >= 43  # 256 bits
    assert service_secret() == secret
    file = data_dir / "secrets" / "service"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]


def test_those_who_start_together_agree(data_dir: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: service_secret(), range(32)))) == 1


def test_it_is_recognised(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_service_secret(service_secret())
    for wrong in (None, "", "guess", "é"):
        assert not is_service_secret(wrong)
    monkeypatch.setenv("KALEIDOSCOPE_SERVICE_SECRET", "given")
    assert is_service_secret("given")
