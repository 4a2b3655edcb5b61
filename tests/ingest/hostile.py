"""A folder that nobody would wish for: odd names, odd things, closed doors."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from workbench import photo

ODD_NAMES = [
    b"plain.jpg",
    "emoji \U0001f600.jpg".encode(),
    b"new\nline.jpg",
    b"-rf.jpg",
    b" leading.jpg",
    b"trailing.jpg ",
    b"back\\slash.jpg",
    b"looks\\xe9escaped.jpg",
    b"percent%s%n.jpg",
    b"'); DROP TABLE photos;--.jpg",
    b"$(touch PWNED).jpg",
    "caf\u00e9.jpg".encode(),
    "cafe\u0301.jpg".encode(),
    b"latin1 caf\xe9.jpg",
    b"bad utf8 \xff\xfe\x80.jpg",
    b"surrogate \xed\xa0\x80.jpg",
    b"control \x01\x1b[31m.jpg",
    b"a" * 251 + b".jpg",
    b"UPPER.JPG",
    b"many.dots.jpg",
    b"no_extension",
    b"sub\ndir/a.jpg",
    b"dir\xff/a.jpg",
    b"looks_like.jpg/inside.jpg",
    b"node_modules/a.jpg",
]
PASSED_OVER = {
    b".hidden.jpg": "hidden",
    b"notes.txt": "extension",
    b"no_photo_and_no_extension": "extension",
    b".thumbnails/a.jpg": "hidden-folder",
    b"@eaDir/a.jpg": "system-folder",
}
LINKS = {
    b"link_to_plain.jpg": b"plain.jpg",
    b"link_outside.jpg": b"/etc/passwd",
    b"link_dir_outside": b"/etc",
    b"dangling.jpg": b"nowhere.jpg",
    b"loop_a.jpg": b"loop_b.jpg",
    b"loop_b.jpg": b"loop_a.jpg",
    b"dir_loop": b".",
    b"parent_loop": b"..",
    b"dev_zero.jpg": b"/dev/zero",
}
TIMES = {b"mtime_1900.jpg": -2208988800, b"mtime_2200.jpg": 7258118400}


def make(folder: Path) -> None:
    """Fill a folder with all of it; `open_up` makes it deletable again."""
    for number, name in enumerate([*ODD_NAMES, *PASSED_OVER, *TIMES]):
        readable = b"no" if b"no_photo" in name or b".txt" in name else photo(number)
        _write(folder / os.fsdecode(name), readable)
    for name, time in TIMES.items():
        os.utime(folder / os.fsdecode(name), (time, time))
    for name, target in LINKS.items():
        (folder / os.fsdecode(name)).symlink_to(os.fsdecode(target))
    os.mkfifo(folder / "fifo.jpg")
    _socket(folder)
    with (folder / "sparse.mp4").open("wb") as file:
        file.truncate(1 << 30)
    _write(folder / "empty.jpg", b"")
    _deep(folder)
    _write(folder / "closed.jpg", photo(1000))
    _write(folder / "closed_folder" / "a.jpg", photo(1001))
    (folder / "closed.jpg").chmod(0)
    (folder / "closed_folder").chmod(0)


def open_up(folder: Path) -> None:
    """Let it be removed."""
    (folder / "closed_folder").chmod(0o700)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _socket(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket has room for 107 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket.jpg")
    finally:
        os.chdir(here)


def _deep(folder: Path) -> None:
    """Folders down to a path that no system call takes, with a photo at the end."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(40):
        os.mkdir(b"deep_" + b"x" * 115, dir_fd=at)
        below = os.open(b"deep_" + b"x" * 115, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    with os.fdopen(os.open("deep.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=at), "wb") as file:
        file.write(photo(2000))
    os.close(at)
