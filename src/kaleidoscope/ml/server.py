"""The ML service: photos in over HTTP, faces out to a callback.

This process speaks HTTP and compares vectors; decoding and networks run in the children of a
`Pool`.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import numpy as np
import onnxruntime
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from kaleidoscope.kernel import http, paths
from kaleidoscope.kernel.errors import (
    Forbidden,
    Invalid,
    KaleidoscopeError,
    TooBusy,
    Unavailable,
    UnreadableMedia,
)
from kaleidoscope.kernel.loopback import is_loopback
from kaleidoscope.kernel.settings import data_dir, load
from kaleidoscope.kernel.web import ServiceOnly, create_app, problem
from kaleidoscope.ml import catalog, work
from kaleidoscope.ml.attempts import Attempts, Body, Deliveries
from kaleidoscope.ml.catalog import Pack
from kaleidoscope.ml.dump import PersonDump
from kaleidoscope.ml.errors import ModelError
from kaleidoscope.ml.pool import Crashed, Pool, WorkFailed, photo_pool
from kaleidoscope.ml.schemas import (
    Analysis,
    AttemptAnswer,
    AttemptsAsked,
    AttemptState,
    FromPath,
    MlHealth,
    MlVersion,
    ProcessPhoto,
    ProcessPhotos,
    Refusal,
)
from kaleidoscope.ml.settings import MlSettings

DEFAULT_API_URL = "http://127.0.0.1:8420"
LONGEST_WAIT = 60.0
HEALTH_SECONDS = 45.0
PERMANENT = (UnreadableMedia, Crashed, Forbidden, Invalid)

PHOTOS = Counter("kaleidoscope_ml_photos_total", "Photos looked at", ["outcome"])
FACES = Counter("kaleidoscope_ml_faces_total", "Faces found")
STAGES = Histogram("kaleidoscope_ml_stage_seconds", "Time of a photo by stage", ["stage"])
OPEN = Gauge(
    "kaleidoscope_ml_open_attempts",
    "Photos accepted and not yet delivered",
    multiprocess_mode="livesum",
)
CRASHES = Gauge(
    "kaleidoscope_ml_child_crashes", "Child processes that died", multiprocess_mode="livesum"
)


class MlService:
    """The parts of one running service."""

    def __init__(self, pool: Pool, client: httpx.AsyncClient, api_url: str) -> None:
        self.settings = load(MlSettings)
        self.pool = pool
        self.client = client
        self._deliveries = Deliveries(
            client,
            patience=self.settings.callback_seconds,
            none_coming=lambda: not self.attempts.looking,
        )
        self.attempts = Attempts(
            self._process,
            self._deliveries.send,
            capacity=self.settings.queue,
            at_once=(pool.size + 1) * pool.together,  # as many are ready when a child has done
        )
        self._api_url = api_url
        self.trouble: str | None = None  # why the networks did not work the last time
        self._dump: PersonDump | None = None
        self._following: asyncio.Task[None] | None = None

    async def analyse(self, path: str | None, **more: Any) -> dict[str, Any]:
        """What `ml.work.analyse` answers for the photo at `path`; None: for the drawing.

        `more`: what else a child's function may want to know of it.
        """
        task = {"pack": self.pack().name} | ({"path": path} if path is not None else {}) | more
        try:
            result: dict[str, Any] = await self.pool.run(
                task, name=path or "the drawing", first=path is None
            )
        except (ModelError, WorkFailed, Unavailable) as error:
            self.trouble = error.message
            raise
        self.trouble = None
        return result

    def pack(self) -> Pack:
        """The pack in use, which may change while the service runs."""
        pack = catalog.find(catalog.active())
        if self._dump is None or self._dump.pack != pack.name:
            self._stop_following()
            self._dump = PersonDump(self.client, self._api_url, pack.name, pack.dimension)
            self._following = asyncio.create_task(self._dump.follow(self.settings.dump_seconds))
        return pack

    def check_path(self, text: str) -> str:
        """The real path of a path that may be read. Raises `Forbidden` or `Invalid`."""
        roots = self.settings.roots or (Path.home(), data_dir())
        return paths.to_text(paths.inside(paths.to_bytes(text), [*roots, *paths.allowed()]))

    def check_callback(self, url: str) -> None:
        """Raises `Forbidden` for a callback to a host that is not allowed."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not (
            is_loopback(host) or host in self.settings.callback_hosts
        ):
            raise Forbidden(
                f"results may not be sent to {url}",
                hint="add its host to ml.callback_hosts in kaleidoscope.toml",
            )

    def accept(self, asked: ProcessPhoto) -> AttemptState:
        """Queue a photo, once an attempt. Raises `Forbidden`, `Invalid`, `TooBusy`."""
        self.check_callback(asked.callback_url)
        if asked.callbacks_url is not None:
            self.check_callback(asked.callbacks_url)
        self.check_path(asked.path)
        return self.attempts.accept(asked)

    async def run(self) -> None:
        """Work on attempts until cancelled."""
        try:
            await self.attempts.run()
        finally:
            self._stop_following()

    async def _process(self, request: ProcessPhoto) -> Body:
        """The callback's body for one photo."""
        start = time.monotonic()
        body: Body = {
            "photo_id": request.photo_id,
            "path": request.path,
            "callback_id": str(request.attempt_id),
            "attempt_id": str(request.attempt_id),
        }
        try:
            path = self.check_path(request.path)
            result = await self.analyse(path, photo_id=request.photo_id)
            body |= await self._found(result)
        except KaleidoscopeError as error:
            body |= _failed(error)
            body["meta"]["pack"] = catalog.active()
        body["meta"]["duration_ms"] = round(1000 * (time.monotonic() - start))
        PHOTOS.labels(body["status"]).inc()
        CRASHES.set(self.pool.crashes)
        return body

    async def _found(self, result: dict[str, Any]) -> Body:
        faces = result.pop("faces")
        FACES.inc(len(faces))
        for stage, milliseconds in result["timings"].items():
            STAGES.labels(stage).observe(milliseconds / 1000)
        result["timings"] = {k: round(v, 2) for k, v in result["timings"].items()}
        return {"status": "PROCESSED", **await self._suggested(faces, result), "meta": result}

    async def _suggested(self, faces: list[dict[str, Any]], result: dict[str, Any]) -> Body:
        """The faces with whose they could be, and who would be new."""
        pack = self.pack()
        assert self._dump is not None
        if result["pack"] != pack.name:  # it has changed meanwhile: those are other similarities
            return {"detections": faces, "new_persons": []}
        embeddings = [_vector(face["embedding"]) for face in faces]
        vectors = np.stack(embeddings) if faces else np.zeros((0, pack.dimension), np.float32)
        least = pack.thresholds.found_quality
        suggestions = await self._dump.suggest(
            vectors,
            [face["quality"]["score"] >= least for face in faces],
            pack.thresholds,
            self.settings.preset,
        )
        strangers: dict[str, str] = {}
        for face, suggestion in zip(faces, suggestions, strict=True):
            if suggestion.person_id is not None:
                face["suggested_person_id"] = suggestion.person_id
            if suggestion.similarity is not None:
                face["similarity"] = suggestion.similarity
            if isinstance(suggestion.person_id, str):
                strangers.setdefault(suggestion.person_id, face["embedding"])
        new = [{"temp_id": temp, "embedding": e} for temp, e in strangers.items()]
        return {"detections": faces, "new_persons": new}

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.cancel()


routes = APIRouter()


def _service(request: Request) -> MlService:
    service: MlService = request.app.state.service
    return service


Service = Annotated[MlService, Depends(_service)]
Wait = Annotated[float, Query(ge=0, description="Seconds to wait for the attempt's end.")]


@routes.post("/process-photo", status_code=202, dependencies=[ServiceOnly], tags=["photos"])
async def process_photo(asked: ProcessPhoto, service: Service, wait: Wait = 0.0) -> Response:
    """Accept a photo, once an attempt; 429 with Retry-After when too many are waiting.

    Answers at once, or with how the attempt ended if it does so within `wait` seconds.
    """
    try:
        state = service.accept(asked)
    except TooBusy as busy:
        answer = problem(429, busy.code, busy.message, hint=busy.hint, **busy.fields)
        answer.headers["Retry-After"] = str(busy.fields["retry_after"])
        return answer
    OPEN.set(service.attempts.open)
    if wait:
        state = await service.attempts.state(asked.attempt_id, min(wait, LONGEST_WAIT))
    return Response(state.model_dump_json(), 202, media_type="application/json")


@routes.post("/process-photos", status_code=202, dependencies=[ServiceOnly], tags=["photos"])
async def process_photos(asked: ProcessPhotos, service: Service) -> list[AttemptAnswer]:
    """Accept photos, each as `POST /process-photo` does; what one is refused for stands by it."""
    answers = []
    for photo in asked.photos:
        try:
            answers.append(_answer(photo.attempt_id, service.accept(photo)))
        except KaleidoscopeError as refusal:
            answers.append(_answer(photo.attempt_id, refusal))
    OPEN.set(service.attempts.open)
    return answers


@routes.post("/process-photos/states", dependencies=[ServiceOnly], tags=["photos"])
async def attempt_states(
    asked: AttemptsAsked, service: Service, wait: Wait = 0.0
) -> list[AttemptAnswer]:
    """How attempts stand; waits up to `wait` seconds for the end of any of them.

    One that is refused with 404 is unknown: send it again.
    """
    states = await service.attempts.states(asked.attempt_ids, min(wait, LONGEST_WAIT))
    return [_answer(*pair) for pair in zip(asked.attempt_ids, states, strict=True)]


@routes.get("/process-photo/{attempt_id}", dependencies=[ServiceOnly], tags=["photos"])
async def attempt_state(attempt_id: UUID, service: Service, wait: Wait = 0.0) -> AttemptState:
    """How an attempt stands; waits up to `wait` seconds for its end. 404: send it again."""
    return await service.attempts.state(attempt_id, min(wait, LONGEST_WAIT))


@routes.post(
    "/embeddings/from-image",
    dependencies=[ServiceOnly],
    tags=["photos"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": FromPath.model_json_schema()},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"image": {"type": "string", "format": "binary"}},
                    }
                },
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
async def embeddings_from_image(request: Request, service: Service) -> Analysis:
    """The faces of a photo: `{path}` as JSON, or the file itself (multipart, or as the body)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        path = service.check_path(_path_in(await request.body()))
        return Analysis.model_validate(await service.analyse(path))
    with tempfile.NamedTemporaryFile(prefix="kaleidoscope-upload-") as file:
        await _receive(request, kind, file.fileno(), service.settings.upload_mb << 20)
        try:
            return Analysis.model_validate(await service.analyse(file.name))
        except UnreadableMedia as error:
            text = error.message.replace(file.name, "the picture")
            raise UnreadableMedia(text, reason=error.fields.get("reason", "")) from error


@routes.get("/health", tags=["operation"])
async def health(service: Service) -> MlHealth:
    """Looks at a drawing with the networks in use; 503 when they do not find the face in it."""
    start = time.monotonic()
    try:
        async with asyncio.timeout(HEALTH_SECONDS):
            result = await service.analyse(None)
    except TimeoutError:
        raise Unavailable(f"the networks did not answer within {HEALTH_SECONDS:g} s") from None
    except KaleidoscopeError as error:
        raise Unavailable(f"the networks do not work: {error.message}", hint=error.hint) from error
    if not result["faces"]:
        raise Unavailable("the networks work and do not see the face in a drawing")
    took = round(1000 * (time.monotonic() - start), 1)
    return MlHealth(pack=result["pack"], model_version=result["model_version"], milliseconds=took)


@routes.get("/health/live", tags=["operation"])
async def live() -> dict[str, str]:
    """This process answers."""
    return {"status": "ok"}


@routes.get("/version", tags=["operation"])
async def version(service: Service) -> MlVersion:
    """What would look at a photo now."""
    pack = service.pack()
    return MlVersion(
        version=importlib.metadata.version("kaleidoscope"),
        pack=pack.name,
        model_version=work.engine(pack.name).model_version,
        onnxruntime=onnxruntime.__version__,
    )


@routes.get("/metrics", include_in_schema=False)
async def metrics(service: Service) -> Response:
    """Prometheus."""
    OPEN.set(service.attempts.open)
    CRASHES.set(service.pool.crashes)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def create_server(
    *, api_url: str | None = None, function: str = "kaleidoscope.ml.work:analyse"
) -> FastAPI:
    """The application. `api_url`: where persons are asked for (`KALEIDOSCOPE_API_URL`);
    `function`:
    what the child processes run.
    """
    api = api_url or os.environ.get("KALEIDOSCOPE_API_URL", DEFAULT_API_URL)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        pool = photo_pool(function)
        client = http.client(timeout=60)
        async with pool, client:
            app.state.service = MlService(pool, client, api)
            tasks = [asyncio.create_task(app.state.service.run()), asyncio.create_task(_warm(pool))]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    return create_app("Kaleidoscope ML", [routes], lifespan=lifespan)


async def _warm(pool: Pool) -> None:
    with suppress(Unavailable):  # it is tried again with the first photo, and told there
        await pool.warm()


def _path_in(body: bytes) -> str:
    try:
        return FromPath.model_validate_json(body).path
    except ValidationError as error:
        raise Invalid(f"the body is not {{path}}: {error.errors()[0]['msg']}") from error


async def _receive(request: Request, kind: str, descriptor: int, most: int) -> None:
    """Write an uploaded file to a descriptor."""
    size = request.headers.get("content-length")
    if size is None or not size.isdigit():
        raise Invalid("say how large the picture is (Content-Length)")
    if int(size) > most:
        raise Invalid(f"the picture has {size} bytes; {most} may be uploaded")
    if kind != "multipart/form-data":
        async for chunk in request.stream():
            os.write(descriptor, chunk)
        return
    async with request.form(max_files=1, max_fields=4) as form:
        sent = [part for part in form.values() if isinstance(part, UploadFile)]
        if not sent:
            raise Invalid("the form has no file in it: send one as `image`")
        while chunk := await sent[0].read(1 << 20):
            os.write(descriptor, chunk)


def _failed(error: KaleidoscopeError) -> Body:
    told = {
        "code": error.code,
        "message": error.message,
        "permanent": isinstance(error, PERMANENT),
    }
    return {"status": "FAILED", "detections": [], "new_persons": [], "error": told, "meta": {}}


def _answer(attempt_id: UUID, told: AttemptState | KaleidoscopeError) -> AttemptAnswer:
    if isinstance(told, AttemptState):
        return AttemptAnswer(attempt_id=attempt_id, state=told.state, error=told.error)
    refusal = Refusal(
        status=told.status,
        code=told.code,
        detail=told.message,
        hint=told.hint,
        retry_after=told.fields.get("retry_after"),
    )
    return AttemptAnswer(attempt_id=attempt_id, refusal=refusal)


def _vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(base64.b64decode(text), "<f4")
