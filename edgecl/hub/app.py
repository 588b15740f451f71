"""HTTP, version 1: routes over `service`, as an ASGI application behind `gate`. docs/hub.md has what each takes and gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from edgecl import __version__
from edgecl.hub.gate import Gate
from edgecl.hub.openapi import BODIES, page
from edgecl.hub.pages import make_pages
from edgecl.hub.refusal import Refusal, later
from edgecl.hub.service import Answer, Service
from edgecl.hub.static import Static
from edgecl.hub.view import View
from edgecl.types import StoreError

OFFSET = "Upload-Offset"
CHUNK = "application/offset+octet-stream"


def make(service: Service) -> Gate:
    """The whole hub as an ASGI application; `service` is closed when it ends."""
    app = application(service)
    view = View(service.place, service.settings, service.engine)
    app.router.routes.extend(make_pages(view, secure=service.settings.url.startswith("https:")))
    return Gate(app, Static(service.place.tuf), service.limits)


def application(service: Service) -> FastAPI:
    """The API without the gate: an operator's page can be mounted on it."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(title="edgecl hub", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    _errors(app)
    _device_routes(app, service)
    _upload_routes(app, service)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(
            page(app.openapi()), headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        )

    return app


def _device_routes(app: FastAPI, service: Service) -> None:
    @app.post("/v1/enroll", summary="A device gives its public key, with a join token.", openapi_extra=BODIES["enroll"])
    async def enroll(request: Request) -> Response:
        return await _call(service.enroll, await request.body())

    @app.get("/v1/devices/{device}/nonce", summary="16 bytes that the next envelope has to carry; good once.")
    async def nonce(device: str) -> Response:
        return _response(service.nonce(device))

    @app.get("/v1/devices/{device}/updates/{sequence}", summary="What became of an update: stored, merged or refused.")
    async def update(device: str, sequence: int) -> Response:
        return await _call(service.update, device, sequence)

    @app.post("/v1/devices/{device}/report", summary="A device tells how it is.", openapi_extra=BODIES["report"])
    async def report(device: str, request: Request) -> Response:
        return await _call(service.report, device, await request.body())

    @app.get("/v1/time", summary="The hub's time, signed over a nonce by the timestamp key.")
    async def time(nonce: str) -> Response:
        return Response(await run_in_threadpool(service.time, nonce), media_type="application/json")


def _upload_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/uploads", status_code=201, summary="An envelope begins an upload, or finds it.", openapi_extra=BODIES["envelope"]
    )
    async def begin(request: Request) -> Response:
        return await _call(service.begin, await request.body())

    @app.head("/v1/uploads/{upload}", summary="Its offset, in Upload-Offset.")
    async def offset(upload: str) -> Response:
        return _response(service.offset(upload))

    @app.patch("/v1/uploads/{upload}", summary="Bytes from Upload-Offset on.", openapi_extra=BODIES["chunk"])
    async def append(upload: str, request: Request) -> Response:
        at = request.headers.get(OFFSET, "")
        if not at.isascii() or not at.isdigit() or len(at) > 15:
            raise Refusal(400, f"{OFFSET} is no number")
        if request.headers.get("Content-Type") != CHUNK:
            raise Refusal(415, f"Content-Type is not {CHUNK}")
        return await _call(service.append, upload, int(at), await request.body())


async def _call(function: Callable[..., Answer], *args: Any) -> Response:
    return _response(await run_in_threadpool(function, *args))


def _response(answer: Answer) -> Response:
    headers = {} if answer.offset is None else {OFFSET: str(answer.offset), "Cache-Control": "no-store"}
    if not answer.body:
        return Response(status_code=answer.status, headers=headers)
    return JSONResponse(answer.body, answer.status, headers)


def _errors(app: FastAPI) -> None:
    """Every error is {"error": one line}."""

    @app.exception_handler(Refusal)
    async def refusal(_: Request, error: Refusal) -> Response:
        return JSONResponse({"error": error.text}, error.status, error.headers)

    @app.exception_handler(StoreError)
    async def store(_: Request, error: StoreError) -> Response:
        """The disk is full or the database away: the device comes again."""
        again = later("the hub can't store now; its own log says why", 60, 503)
        print(f"edgecl hub: {error}", flush=True)
        return JSONResponse({"error": again.text}, again.status, again.headers)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 400)
