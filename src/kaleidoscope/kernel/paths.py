"""Paths as text and as bytes, and the folders a request may name.

A POSIX path is bytes; the database and JSON hold text. `to_text` and `to_bytes` are the one
reversible spelling between them: a byte that is no UTF-8 becomes `\\xHH`, and so does the backslash
of a path that already contains something looking like that. Every other path is itself.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import AnyStr

from kaleidoscope.kernel.errors import Forbidden, Invalid
from kaleidoscope.kernel.settings import data_dir

REMEMBERED = "folders"

_LOOKS_ESCAPED = re.compile(r"\\(?=x[0-9a-f]{2})")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_SURROGATE = re.compile("[\udc80-\udcff]")


def to_text(path: str | bytes | os.PathLike[str]) -> str:
    """The path as text that any database and JSON can hold."""
    raw = os.fsencode(path).decode("utf-8", "surrogateescape")
    raw = _LOOKS_ESCAPED.sub(r"\\x5c", raw)
    return _SURROGATE.sub(lambda m: f"\\x{ord(m.group()) - 0xDC00:02x}", raw)


def to_bytes(text: str) -> bytes:
    """The exact bytes of a path spelled by `to_text`; `Invalid` for a text that spells none."""
    out, end = bytearray(), 0
    try:
        for match in _ESCAPE.finditer(text):
            out += text[end : match.start()].encode("utf-8", "surrogateescape")
            out.append(int(match.group(1), 16))
            end = match.end()
        out += text[end:].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise Invalid(f"{text!a} is no path: it holds half a character") from None
    if 0 in out:
        raise Invalid(f"{text!a} is no path: it holds a NUL")
    return bytes(out)


def is_utf8(text: str) -> bool:
    """Whether the path spelled so is its own text (nothing in it was escaped)."""
    return _ESCAPE.search(text) is None


def inside(path: bytes, roots: Sequence[Path]) -> bytes:
    """The real path, links resolved, of a path inside one of `roots`.

    Raises `Forbidden` for a path outside all of them; an empty `roots` allows none.
    """
    real = os.path.realpath(path)
    for root in roots:
        base = os.path.realpath(os.fsencode(root))
        if is_inside(real, base):
            return real
    raise Forbidden(
        f"{to_text(path)} is outside the allowed folders",
        hint="add its folder to ingest.roots in kaleidoscope.toml",
        path=to_text(path),
    )


def allow(folder: bytes) -> None:
    """Let our services on this machine read a folder from now on, and all below it.

    For a folder that somebody names who shows the service secret: they can read the data folder,
    and so are its owner. Remembered in `folders` in the data folder, one JSON string a line.
    """
    if not any(is_inside(folder, os.fsencode(known)) for known in allowed()):
        data_dir().mkdir(parents=True, exist_ok=True)
        descriptor = os.open(data_dir() / REMEMBERED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(json.dumps(to_text(folder)) + "\n")


def allowed() -> list[Path]:
    """The folders given to `allow` at any time."""
    file = data_dir() / REMEMBERED
    try:
        status = file.stat()
    except FileNotFoundError:
        return []
    return _read(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _read(file: Path, modified: int, size: int) -> list[Path]:
    """Read once in each state: who looks at a million photos asks for each of them."""
    lines = file.read_text().splitlines()
    return [Path(os.fsdecode(to_bytes(json.loads(line)))) for line in lines]


def is_inside(path: AnyStr, folder: AnyStr) -> bool:
    """Whether a path is the folder or lies below it, by its name alone."""
    slash = b"/" if isinstance(path, bytes) else "/"
    return path == folder or path.startswith(folder.rstrip(slash) + slash)
