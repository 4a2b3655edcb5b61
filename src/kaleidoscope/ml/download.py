"""Large files over HTTP: to a `.part` file that the next try continues, renamed when whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx

from kaleidoscope.ml.errors import DownloadFailed

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are there and the bytes there will be."""

LARGEST = 2 * 1024**3  # bytes of one download whose size is not known beforehand
TIMEOUT = httpx.Timeout(30.0, connect=15.0)


def fetch(url: str, target: Path, size: int, progress: Progress) -> None:
    """Download to `target`, continuing an earlier try. `size` 0: whatever the server says."""
    part = target.with_name(target.name + ".part")
    try:
        with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
            _stream(client, url, part, size, progress, target.name)
        part.replace(target)
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise DownloadFailed(
            f"cannot fetch {url}: {why}", hint="call again to continue", url=url
        ) from error
    except OSError as error:
        raise DownloadFailed(f"cannot write {part}: {error.strerror}", path=str(part)) from error


def _stream(
    client: httpx.Client, url: str, part: Path, size: int, progress: Progress, name: str
) -> None:
    have = part.stat().st_size if part.is_file() else 0
    if size and have == size:
        return
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise DownloadFailed(
                f"{url} is shorter than what is here of it", hint="call again", url=url
            )
        response.raise_for_status()
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0  # the server sends it from the start
        total = have + int(response.headers.get("content-length", 0)) or size
        if total > LARGEST or (size and total != size):
            part.unlink(missing_ok=True)
            raise DownloadFailed(f"{url} has {total} bytes, {size or LARGEST} expected", url=url)
        with part.open("ab" if have else "wb") as out:
            for block in response.iter_raw():
                have += len(block)
                if have > (size or LARGEST):
                    raise DownloadFailed(f"{url} is longer than {size or LARGEST} bytes", url=url)
                out.write(block)
                progress(name, have, total)
    if total and have != total:
        raise DownloadFailed(
            f"{url} ended after {have} of {total} bytes", hint="call again to continue", url=url
        )
