"""Join tokens: all that a device needs to enrol, as one string."""

from __future__ import annotations

import base64
import json

from sqlalchemy import Engine

from edgecl.hub import repository, store
from edgecl.hub.place import Place
from edgecl.hub.settings import Settings
from edgecl.types import ConfigError

PREFIX = "edgecl-join:"


def token(here: Place, known: Settings, engine: Engine, wish: store.Token, who: str) -> str:
    """A new one: PREFIX and base64url of JSON {url, token, root}; root is the SHA-256 of TUF's first root.

    Raises ConfigError where the hub has no address yet.
    """
    if not known.url:
        raise ConfigError(f"{here.settings}: url is empty; devices need an address to come to")
    said = {"url": known.url, "token": store.add_token(engine, wish, who), "root": repository.root_hash(here.root)}
    return PREFIX + base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode()
