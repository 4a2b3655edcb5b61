"""How one of our services calls another."""

from __future__ import annotations

from typing import Any

import httpx

from kaleidoscope.kernel.secrets import HEADER, service_secret


def client(**options: Any) -> httpx.AsyncClient:
    """A client that shows the service secret; `options` as those of `httpx.AsyncClient`.

    Its connections are aiohttp's, which cost a fifth of the processor time of httpx's own: a photo
    takes several requests. As many are open as are asked for, no proxy is used, and no redirect is
    followed: the secret goes to the address given and nowhere else.
    """
    from httpx_aiohttp import AiohttpTransport  # here: the terminal, which calls nobody, is quicker

    limits = httpx.Limits(max_connections=0)  # aiohttp's word for no limit
    options.setdefault("transport", AiohttpTransport(limits=limits))
    return httpx.AsyncClient(headers={HEADER: service_secret()}, trust_env=False, **options)
