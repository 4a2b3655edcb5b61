"""How the other rooms talk to the ML service."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx

from kaleidoscope.kernel import http
from kaleidoscope.kernel.errors import (
    Forbidden,
    Invalid,
    KaleidoscopeError,
    NotFound,
    TooBusy,
    Unavailable,
    UnreadableMedia,
)
from kaleidoscope.kernel.paths import to_text
from kaleidoscope.ml.schemas import (
    Analysis,
    AttemptAnswer,
    AttemptState,
    MlHealth,
    MlVersion,
    ProcessPhoto,
)

DEFAULT_URL = "http://127.0.0.1:8421"
CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 30.0
PHOTO_SECONDS = 180.0

_KINDS: dict[int, type[KaleidoscopeError]] = {
    403: Forbidden,
    404: NotFound,
    422: Invalid,
    429: TooBusy,
}


def ml_url() -> str:
    """Where the ML service is: `KALEIDOSCOPE_ML_URL`, else this machine."""
    return os.environ.get("KALEIDOSCOPE_ML_URL", DEFAULT_URL)


class MlClient:
    """One connection pool to one ML service. `aclose` it, or use it as an async context.

    Every call raises `Unavailable` when the service does not answer or answers 5xx.
    """

    def __init__(
        self, base_url: str | None = None, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        chosen = {"transport": transport} if transport else {}
        self._http = http.client(
            base_url=base_url or ml_url(),
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
            **chosen,
        )

    async def __aenter__(self) -> MlClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def process_photo(
        self,
        *,
        photo_id: int,
        path: str,
        callback_url: str,
        attempt_id: UUID,
        wait: float = 0.0,
    ) -> AttemptState:
        """Have a photo looked at; the result goes to `callback_url`.

        Answers how the attempt stands at its end, at the latest after `wait` seconds.

        Raises `TooBusy` (its field `retry_after` in seconds), `Forbidden` for a path or a callback
        that the service does not allow, `Invalid`.
        """
        body = {
            "photo_id": photo_id,
            "path": path,
            "callbackUrl": callback_url,
            "attempt_id": str(attempt_id),
        }
        answer = await self._call("POST", "/process-photo", json=body, **_waiting(wait))
        return AttemptState.model_validate(answer)

    async def attempt_state(self, attempt_id: UUID, wait: float = 0.0) -> AttemptState:
        """How an attempt stands; waits up to `wait` seconds for its end.

        Raises `NotFound` for one that the service does not know: it was restarted, send it again.
        """
        answer = await self._call("GET", f"/process-photo/{attempt_id}", **_waiting(wait))
        return AttemptState.model_validate(answer)

    async def process_photos(
        self, photos: Sequence[ProcessPhoto]
    ) -> list[AttemptState | KaleidoscopeError]:
        """Have photos looked at; each is accepted or refused, as `process_photo` says."""
        sent = [photo.model_dump(mode="json", by_alias=True) for photo in photos]
        answers = await self._call("POST", "/process-photos", json={"photos": sent})
        return [_told(AttemptAnswer.model_validate(answer)) for answer in answers]

    async def attempt_states(
        self, attempt_ids: Sequence[UUID], wait: float = 0.0
    ) -> list[AttemptState | KaleidoscopeError]:
        """How attempts stand; waits up to `wait` seconds for the end of any of them.

        `NotFound` stands for one that the service does not know.
        """
        asked = {"attempt_ids": [str(attempt_id) for attempt_id in attempt_ids]}
        answers = await self._call("POST", "/process-photos/states", json=asked, **_waiting(wait))
        return [_told(AttemptAnswer.model_validate(answer)) for answer in answers]

    async def embeddings_from_image(self, source: str | bytes | os.PathLike[str]) -> Analysis:
        """The faces of a photo: its path (a text spelled by `kernel.paths`, or a `Path`), or the
        bytes of the file itself. Raises `UnreadableMedia`, `NotFound`, `Forbidden`, `TooBusy`.
        """
        if isinstance(source, bytes):
            sent: dict[str, Any] = {"files": {"image": ("image", source)}}
        else:
            path = source if isinstance(source, str) else to_text(source)
            sent = {"json": {"path": path}}
        timeout = httpx.Timeout(PHOTO_SECONDS, connect=CONNECT_SECONDS, pool=None)
        answer = await self._call("POST", "/embeddings/from-image", timeout=timeout, **sent)
        return Analysis.model_validate(answer)

    async def health(self) -> MlHealth:
        """Have the service try its networks. Raises `Unavailable` that says what is wrong."""
        return MlHealth.model_validate(await self._call("GET", "/health"))

    async def version(self) -> MlVersion:
        """What would look at a photo now."""
        return MlVersion.model_validate(await self._call("GET", "/version"))

    async def _call(self, method: str, path: str, **sent: Any) -> Any:
        try:
            answer = await self._http.request(method, path, **sent)
        except httpx.TransportError as error:
            raise Unavailable(
                f"the ML service at {self._http.base_url} does not answer: "
                f"{error or type(error).__name__}"
            ) from error
        if answer.is_success:
            return answer.json()
        raise _error(answer)


def _waiting(seconds: float) -> dict[str, Any]:
    """What a request is sent with that the service may hold for so long."""
    timeout = httpx.Timeout(seconds + ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None)
    return {"params": {"wait": seconds}, "timeout": timeout}


def _told(answer: AttemptAnswer) -> AttemptState | KaleidoscopeError:
    if answer.refusal is not None:
        refusal = answer.refusal.model_dump(exclude_none=True)
        return _refused(answer.refusal.status, answer.refusal.detail, answer.refusal.code, refusal)
    return AttemptState(
        attempt_id=answer.attempt_id, state=answer.state or "queued", error=answer.error
    )


def _error(answer: httpx.Response) -> KaleidoscopeError:
    """The service's problem document as the error that it was there."""
    try:
        problem = answer.json()
        message, code = str(problem["detail"]), str(problem["code"])
    except (ValueError, LookupError, TypeError):
        message, code, problem = f"the ML service answered {answer.status_code}", "", {}
    return _refused(answer.status_code, message, code, problem)


def _refused(status: int, message: str, code: str, problem: dict[str, Any]) -> KaleidoscopeError:
    kind = _KINDS.get(status, Unavailable)
    if code == UnreadableMedia.code:
        kind = UnreadableMedia
    given = {k: v for k, v in problem.items() if k in ("path", "reason", "retry_after")}
    return kind(message, hint=problem.get("hint"), **given)
