"""The kinds of sources by the word that a manifest has for them."""

from __future__ import annotations

from collections.abc import Mapping

from . import folder, postgresql, redis, sqlite
from .source import Kind

KINDS: Mapping[str, Kind] = {
    "postgresql": postgresql.DATABASE,
    "postgresql-globals": postgresql.GLOBALS,
    "sqlite": sqlite.KIND,
    "redis": redis.KIND,
    "folder": folder.KIND,
}
