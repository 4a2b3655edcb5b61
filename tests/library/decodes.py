"""What child processes run in tests that count decodings: one line each in the file `DECODES`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kaleidoscope.ml import decode
from kaleidoscope.ml.decode import Decoded, Side
from kaleidoscope.ml.files import Source

_decode_sizes = decode.decode_sizes


def _counted(source: Source, sides: Sequence[Side], *, memory: int) -> list[Decoded]:
    with Path(os.environ["DECODES"]).open("a") as file:
        file.write(f"{list(sides)}\n")
    return _decode_sizes(source, sides, memory=memory)


decode.decode_sizes = _counted  # before others take it from there

from kaleidoscope.library.outside.derivatives import make as make  # noqa: E402
from kaleidoscope.library.outside.looking import look as look  # noqa: E402
