"""What the schema of the API can't get from the code, and the schema as a page of its own: no script, nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any


def _binary(kind: str, about: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary", "description": about}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


_TEXT = {"type": "string"}
_ENROLL = {
    "token": _TEXT,
    "public_key": {**_TEXT, "description": "base64 of the 32 bytes of an Ed25519 key"},
    "name": {**_TEXT, "maxLength": 100},
    "machine": {**_TEXT, "maxLength": 40},
    "edgecl": {**_TEXT, "maxLength": 40},
    "signature": {**_TEXT, "description": 'base64 of the Ed25519 signature over "edgecl-enroll", a zero byte and the token'},
}

BODIES: dict[str, dict[str, Any]] = {
    "enroll": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object", "properties": _ENROLL, "required": list(_ENROLL)}}},
        }
    },
    "envelope": _binary("application/octet-stream", "a sealed envelope, 512 bytes at most"),
    "report": _binary(
        "application/octet-stream",
        "a signed record of a map: device, nonce, and if wanted edgecl, model, health (formats/update.md); 1024 bytes at most",
    ),
    "chunk": {
        **_binary("application/offset+octet-stream", "bytes of the payload from Upload-Offset on"),
        "parameters": [{"name": "Upload-Offset", "in": "header", "required": True, "schema": {"type": "integer"}}],
    },
}
"""Requests whose bodies are read as bytes."""

STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{font-size:.95em}h2{font-size:1.1rem;margin:1.5rem 0 0}p{margin:.2rem 0}li{margin:.1rem 0}"
)


def page(schema: dict[str, Any]) -> str:
    """HTML of an OpenAPI schema: each path and method with its summary, parameters and answers."""
    parts = [
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>{_operation(said)}</section>"
        for path, methods in schema["paths"].items()
        for method, said in methods.items()
    ]
    title = escape(f"{schema['info']['title']} {schema['info']['version']}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        f'<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>{"".join(parts)}</html>'
    )


def _operation(said: dict[str, Any]) -> str:
    lines = [f"<p>{escape(said.get('summary', ''))}</p>"]
    items = [f"{p['in']} <code>{escape(p['name'])}</code>" for p in said.get("parameters", [])]
    for kind, content in said.get("requestBody", {}).get("content", {}).items():
        schema = content["schema"]
        about = schema.get("description") or ", ".join(schema.get("properties", {}))
        items.append(f"body <code>{escape(kind)}</code>: {escape(about)}")
    items.append("answers " + ", ".join(escape(k) for k in said.get("responses", {})))
    return "".join(lines) + "<ul>" + "".join(f"<li>{i}</li>" for i in items) + "</ul>"
