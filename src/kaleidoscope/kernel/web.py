"""The HTTP edge: one transaction a request, problem documents, and only local callers.

Errors follow RFC 9457 (`application/problem+json`). `Host` and `Origin` are checked, so that a page
elsewhere cannot drive the service through the user's browser (DNS rebinding, cross-site requests).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from kaleidoscope.kernel import secrets
from kaleidoscope.kernel.db import Database
from kaleidoscope.kernel.errors import Forbidden, KaleidoscopeError
from kaleidoscope.kernel.loopback import is_loopback

log = structlog.get_logger(__name__)


async def session(request: Request) -> AsyncIterator[AsyncSession]:
    """The request's one transaction, committed before the answer is sent."""
    db: Database = request.app.state.db
    async with db.transaction() as opened:
        yield opened


# scope="function": the dependency ends, and so commits, before the response leaves.
Session = Annotated[AsyncSession, Depends(session, scope="function")]


def require_secret(shown: Annotated[str | None, Header(alias=secrets.HEADER)] = None) -> None:
    """Refuse a caller that does not show the service secret."""
    if not secrets.is_service_secret(shown):
        raise Forbidden("this route is for Kaleidoscope's own services", header=secrets.HEADER)


ServiceOnly = Depends(require_secret)


def create_app(
    title: str,
    routers: Sequence[APIRouter],
    *,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]] | None = None,
    hosts: Sequence[str] = (),
) -> FastAPI:
    """An application with our error documents; `hosts` adds to the names it answers for."""
    app = FastAPI(title=title, version="1", lifespan=lifespan)
    for router in routers:
        app.include_router(router)
    app.add_exception_handler(KaleidoscopeError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    for error in (OperationalError, InterfaceError, TimeoutError):
        app.add_exception_handler(error, _on_database)
    app.add_exception_handler(Exception, _on_unknown)
    app.add_middleware(LocalCallersOnly, hosts=frozenset(h.lower() for h in hosts))
    return app


def problem(status: int, code: str, detail: str, **fields: Any) -> JSONResponse:
    """An RFC 9457 problem document."""
    body = {"type": f"urn:kaleidoscope:{code}", "title": code.replace("-", " "), "status": status}
    return JSONResponse(
        {**body, "detail": detail, "code": code, **fields},
        status_code=status,
        media_type="application/problem+json",
    )


class LocalCallersOnly:
    """Refuse requests whose `Host` or `Origin` is not this machine or a host the settings name."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = frozenset()) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = {k.lower(): v.decode("latin-1") for k, v in scope["headers"]}
            host, origin = headers.get(b"host", ""), headers.get(b"origin")
            if not self._known("//" + host):
                refusal = problem(421, "wrong-host", f"this service does not answer for {host!r}")
                return await refusal(scope, receive, send)
            # An Origin must be our own: scheme-less same-origin callers send none.
            if origin is not None and (not self._known(origin) or urlsplit(origin).netloc != host):
                refusal = problem(403, "wrong-origin", f"pages of {origin} may not call this")
                return await refusal(scope, receive, send)
        return await self.app(scope, receive, send)

    def _known(self, url: str) -> bool:
        try:
            name = urlsplit(url).hostname or ""
        except ValueError:
            return False
        return name in self.hosts or is_loopback(name)


async def _on_known(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, KaleidoscopeError)
    hint = {"hint": error.hint} if error.hint else {}
    return problem(error.status, error.code, error.message, **hint, **error.fields)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [
        {"field": ".".join(str(p) for p in e["loc"] if p != "body"), "message": e["msg"]}
        for e in error.errors()
    ]
    detail = "; ".join(f"{f['field']}: {f['message']}" for f in faults[:3])
    return problem(422, "invalid", detail, errors=faults)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    answer = problem(error.status_code, code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def _on_database(request: Request, error: Exception) -> JSONResponse:
    log.warning("database unavailable", path=request.url.path, error=str(error).splitlines()[0])
    return problem(503, "database", "the database does not answer; try again in a moment")


async def _on_unknown(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", path=request.url.path, exc_info=error)
    return problem(500, "internal", "an unexpected error; the log of this service has the details")
