"""The page's addresses, on Starlette, which FastAPI stands on: `app.router.routes.extend(make_pages(hub))`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from edgecl.hub.pages.render import Render
from edgecl.hub.pages.sessions import Session, Sessions, Tries, same
from edgecl.hub.pages.source import Source
from edgecl.types import EdgeclError

COOKIE = "edgecl_session"
CHECKS = 2  # of passwords at once: each takes 64 MiB
ROWS = 50  # of a list on one page
FORM_BYTES = 4096

Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")


def make_pages(source: Source, clock: Callable[[], float] = time.monotonic, *, secure: bool = False) -> list[BaseRoute]:
    """Routes that answer errors by pages of their own.

    `clock` counts sessions and failed logins; `secure`: browsers come by HTTPS, through a proxy.
    """
    pages = _Pages(source, Sessions(clock), Tries(clock), secure)
    lists = {"/": pages.overview, "/devices": pages.devices, "/updates": pages.updates, "/models": pages.models}
    lists |= {"/classes": pages.classes, "/audit": pages.audit, "/devices/{id}": pages.device}
    deeds = {"/devices/{id}/approve": pages.approve, "/devices/{id}/revoke": pages.revoke, "/logout": pages.logout}
    deeds |= {"/models/{number}/rollback": pages.rollback, "/classes/share": pages.share}
    return [
        Route("/login", pages.said(pages.login), methods=["GET", "POST"]),
        *(Route(path, pages.said(pages.logged_in(show))) for path, show in lists.items()),
        *(Route(path, pages.said(pages.allowed(do)), methods=["POST"]) for path, do in deeds.items()),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]


class _Pages:
    def __init__(self, source: Source, sessions: Sessions, tries: Tries, secure: bool) -> None:
        self.source, self.sessions, self.tries, self.secure, self.render = source, sessions, tries, secure, Render(source)
        self.checks = CapacityLimiter(CHECKS)

    # who may

    def logged_in(self, show: Callable[[Request, Session], Response]) -> Handler:
        async def handler(request: Request) -> Response:
            session = await self._session(request)
            if session is None:
                return RedirectResponse("/login", 303)
            try:
                return await run_in_threadpool(show, request, session)  # a database is asked
            except EdgeclError as e:
                raise HTTPException(503, str(e)) from None

        return handler

    def allowed(self, do: Callable[[Request, Session, dict[str, str]], str]) -> Handler:
        """A change: of this session, by a form of ours. `do` returns where to go then."""

        async def handler(request: Request) -> Response:
            session = await self._session(request)
            if session is None:
                return RedirectResponse("/login", 303)
            form = await _form(request)
            if not same(form.get("csrf", ""), session.csrf):
                raise HTTPException(403, "this form is not of your session; go back, reload, and try again")
            try:
                return RedirectResponse(await run_in_threadpool(do, request, session, form), 303)
            except EdgeclError as e:
                raise HTTPException(409, str(e)) from None

        return handler

    async def _session(self, request: Request) -> Session | None:
        """Of who is still an operator, with the password of the login."""
        session = self._opened(request)
        if session is None or await _asked(self.source.since, session.name) == session.since:
            return session
        self.sessions.close(request.cookies.get(COOKIE, ""))
        return None

    def _opened(self, request: Request) -> Session | None:
        return self.sessions.find(request.cookies.get(COOKIE, ""))

    async def login(self, request: Request) -> Response:
        if request.method == "GET":
            return self.render(request, "login.html", None)
        form = await _form(request)
        name, address = form.get("name", ""), request.client.host if request.client else ""
        keys = f"name {name[:100]}", f"address {address}"
        if wait := self.tries.wait(*keys):
            return self._refused(request, name, f"too many tries; the next one in {wait / 60:.0f} min", 429)
        self.tries.fail(*keys)  # counted before the check: those that come at once too
        since = await _asked(self.source.since, name[:100])  # before the check: what is set meanwhile ends this session
        right = await _asked(self.source.login, name[:100], form.get("password", ""), limiter=self.checks)
        if not right or since is None:
            return self._refused(request, name, "no such name and password", 401)
        self.tries.take_back(*keys)
        response = RedirectResponse("/", 303)
        secure = self.secure or request.url.scheme == "https"
        response.set_cookie(COOKIE, self.sessions.open(name[:100], since), httponly=True, samesite="strict", secure=secure)
        return response

    def _refused(self, request: Request, name: str, why: str, status: int) -> Response:
        return self.render(request, "login.html", None, status, name=name, why=why)

    def said(self, handler: Handler) -> Handler:
        """What went wrong in `handler` as a page."""

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except HTTPException as e:
                return self.render(
                    request, "failed.html", self._opened(request), e.status_code, status=e.status_code, why=e.detail
                )

        return answer

    # what is shown

    def overview(self, request: Request, session: Session) -> Response:
        return self.render(
            request, "overview.html", session, devices=self.source.device_counts(), updates=self.source.update_counts(),
            models=self.source.models(0, ROWS), newest=self.source.updates("", "", 0, 8),
            waiting=self.source.devices("pending", 0, 8),
        )  # fmt: skip

    def devices(self, request: Request, session: Session) -> Response:
        state, start = _one_of(request, "state", ("pending", "approved", "revoked")), _start(request)
        rows = self.source.devices(state, start, ROWS + 1)
        return self._list(request, session, "devices.html", rows, state=state, counts=self.source.device_counts())

    def device(self, request: Request, session: Session) -> Response:
        found = self.source.device(request.path_params["id"])
        if found is None:
            raise HTTPException(404, f"no device {request.path_params['id'][:40]!r} here")
        rows = self.source.updates("", found.id, _start(request), ROWS + 1)
        return self._list(request, session, "device.html", rows, device=found)

    def updates(self, request: Request, session: Session) -> Response:
        state, start = _one_of(request, "state", ("stored", "merged", "refused")), _start(request)
        rows = self.source.updates(state, "", start, ROWS + 1)
        return self._list(request, session, "updates.html", rows, state=state, counts=self.source.update_counts())

    def models(self, request: Request, session: Session) -> Response:
        rows = self.source.models(_start(request), ROWS + 1)
        return self._list(request, session, "models.html", rows, merges=self.source.merges())

    def classes(self, request: Request, session: Session) -> Response:
        return self.render(request, "classes.html", session, rows=self.source.classes())

    def audit(self, request: Request, session: Session) -> Response:
        return self._list(request, session, "audit.html", self.source.audit(_start(request), ROWS + 1))

    def _list(self, request: Request, session: Session, template: str, rows: Any, **more: Any) -> Response:
        """One row more than is shown was asked for: it tells whether there is a next page."""
        start = _start(request)
        back, on = max(0, start - ROWS) if start else None, start + ROWS if len(rows) > ROWS else None
        return self.render(request, template, session, rows=rows[:ROWS], back=back, on=on, **more)

    # what is done

    def approve(self, request: Request, session: Session, form: dict[str, str]) -> str:
        self.source.approve(request.path_params["id"], session.name)
        return f"/devices/{request.path_params['id']}"

    def revoke(self, request: Request, session: Session, form: dict[str, str]) -> str:
        self.source.revoke(request.path_params["id"], session.name)
        return f"/devices/{request.path_params['id']}"

    def rollback(self, request: Request, session: Session, form: dict[str, str]) -> str:
        number = _number(request.path_params["number"])
        if number is None:
            raise HTTPException(404, f"no model {request.path_params['number'][:40]!r} here")
        self.source.rollback(number, session.name)
        return "/models"

    def share(self, request: Request, session: Session, form: dict[str, str]) -> str:
        self.source.share(form.get("class", ""), session.name)
        return "/classes"

    def logout(self, request: Request, session: Session, form: dict[str, str]) -> str:
        self.sessions.close(request.cookies.get(COOKIE, ""))
        return "/login"


async def _asked(ask: Callable[..., T], *args: str, limiter: CapacityLimiter | None = None) -> T:
    """What the hub answers, in a thread. Raises HTTPException."""
    try:
        return await to_thread.run_sync(ask, *args, limiter=limiter)
    except EdgeclError as e:
        raise HTTPException(503, str(e)) from None


async def _form(request: Request) -> dict[str, str]:
    """Its fields. Raises HTTPException where it is large, no form, or sent from another site."""
    origin, length = request.headers.get("origin"), request.headers.get("content-length", "")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise HTTPException(403, "this form was sent from another site")
    if not length.isdigit() or len(length) > 9 or int(length) > FORM_BYTES:
        raise HTTPException(413, f"a form has at most {FORM_BYTES} bytes, and says how many")
    async with request.form(max_files=0, max_fields=10, max_part_size=FORM_BYTES) as form:
        return {k: v for k, v in form.items() if isinstance(v, str)}


def _start(request: Request) -> int:
    return _number(request.query_params.get("start", "0")) or 0


def _number(text: str) -> int | None:
    """None for what is no number, or one larger than any here."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _one_of(request: Request, key: str, known: tuple[str, ...]) -> str:
    return v if (v := request.query_params.get(key, "")) in known else ""
