"""Templates to answers, with the headers that a browser keeps a page's walls by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from edgecl.hub.pages import chart, shown
from edgecl.hub.pages.sessions import Session
from edgecl.hub.pages.source import Source

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none at all browsers hide from us where a form is from
    "Cache-Control": "no-store",
}

MENU = (("/", "Overview"), ("/devices", "Devices"), ("/updates", "Updates"), ("/models", "Models"), ("/classes", "Classes"))


class Render:
    """Names and reasons come from devices: everything is escaped, and a name that a template misses is an error."""

    def __init__(self, source: Source) -> None:
        self.source = source
        folder = Path(__file__).parent / "templates"
        self.templates = Environment(
            loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self.templates.filters |= {"size": shown.size, "utc": shown.utc, "percent": shown.percent, "names": shown.names}
        self.templates.globals |= {"accuracy_chart": chart.accuracy, "menu": MENU}

    def __call__(self, request: Request, template: str, session: Session | None, code: int = 200, **values: Any) -> Response:
        """`values` are the template's own."""
        now = self.source.now()
        common = {"hub": self.source.name(), "path": request.url.path, "session": session, "why": "", "name": ""}
        text = self.templates.get_template(template).render(ago=lambda then: shown.ago(then, now), **{**common, **values})
        return HTMLResponse(text, code, headers=HEADERS)
