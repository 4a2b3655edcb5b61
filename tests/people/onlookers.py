"""What the child processes of a comparison run in tests: a photo is a JSON file that says what each
pack sees in it, by the pack's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from packs import view_of

from kaleidoscope.kernel.errors import UnreadableMedia
from kaleidoscope.ml.errors import ModelError
from kaleidoscope.people.schemas import encode_vector


def look(task: dict[str, Any]) -> dict[str, Any]:
    """The faces that the task's pack sees in the photo at its path."""
    try:
        seen = json.loads(Path(task["path"]).read_text())
    except OSError as error:
        raise UnreadableMedia(f"{task['path']}: {error.strerror}") from error
    if task["pack"] not in seen:
        raise ModelError(f"the networks of {task['pack']} do not load")
    faces = [_face(**one) for one in seen[task["pack"]]]
    return {"faces": faces, "timings": {"decode": 1.0, "detect": 9.0 if faces else 4.0}}


def _face(bbox: list[float], person: int, view: int, noise: float, width: int) -> dict[str, Any]:
    return {"bbox": bbox, "embedding": encode_vector(view_of(person, view, width, noise))}
