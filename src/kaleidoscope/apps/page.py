"""The web application as the API serves it: the files that `web/` was built into, and no others.

They lie in `apps/page/`, made by `make setup` and packed into the wheel. What may be asked for is
read from the folder once: a path that is not among them is not found, however it is spelled.
"""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).with_name("page_files")
NOT_BUILT = "the page is not built: install Node.js 20 or newer and run `make setup`"

YEAR = "public, max-age=31536000, immutable"  # a name that holds a hash of its content
ASK = "no-cache"  # kept, and asked for at every visit whether it is still the same

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class File:
    """A file of the page. `tag` says its content."""

    content: bytes
    kind: str
    tag: str
    keep: str


@router.get("/")
async def index(request: Request) -> Response:
    """The page itself."""
    if not is_built():
        return Response(NOT_BUILT + "\n", 503, media_type="text/plain; charset=utf-8")
    return _answer(request, "index.html")


@router.get("/assets/{name}")
async def asset(request: Request, name: str) -> Response:
    """A script, a style or a picture of the page."""
    return _answer(request, f"assets/{name}")


@router.get("/favicon.svg")
async def icon(request: Request) -> Response:
    """The page's sign in the browser's tab."""
    return _answer(request, "favicon.svg")


def is_built() -> bool:
    """Whether there is a page to serve."""
    return "index.html" in files()


@cache
def files() -> dict[str, File]:
    """The page's files by their path below it."""
    found = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file():
            name = path.relative_to(FOLDER).as_posix()
            content = path.read_bytes()
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
            keep = YEAR if name.startswith("assets/") else ASK
            found[name] = File(content, kind, tag, keep)
    return found


def _answer(request: Request, name: str) -> Response:
    file = files().get(name)
    if file is None:
        raise HTTPException(404, "no such file of the page")
    headers = {**HEADERS, "ETag": file.tag, "Cache-Control": file.keep}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)
