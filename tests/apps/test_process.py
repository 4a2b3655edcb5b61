"""What every process of the product does alike."""

from __future__ import annotations

import pytest

from kaleidoscope.apps.process import check_listen_address
from kaleidoscope.kernel.errors import SettingsError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_it_listens_on_loopback(host: str) -> None:
    check_listen_address(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "photos.example", ""])
def test_it_listens_nowhere_else(host: str) -> None:
    with pytest.raises(SettingsError, match="refusing to listen"):
        check_listen_address(host)
