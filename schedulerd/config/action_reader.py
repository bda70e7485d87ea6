"""Reads what a job does: from the settings of its action to the options of the `Job`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..backups.manifest import backup_owner_at
from ..backups.source import HISTORY
from ..core.models import Secret
from .resolver import Resolver
from .settings_backups import CIPHERS

PATHS = ("directory", "file", "verify", "folder", "age_identity", "gnupg_home", "pg_bin")


@dataclass(frozen=True)
class OwnData:
    """Where schedulerd stores its own data: the URL of its store, and the schema in a PostgreSQL store."""

    state_dir: str
    store: str | Secret
    schema: str

    @property
    def default_backups(self) -> str:
        """Return the folder of backups for jobs that name none."""
        return os.path.join(self.state_dir, "backups")


@dataclass(frozen=True)
class ActionReader:
    """Reads the options of actions. `sources` are those of the file."""

    resolver: Resolver
    sources: Mapping[str, str | Secret]
    own: OwnData

    def options(self, action: str, given: Any) -> Mapping[str, Any]:
        """Return the options of an action, with absolute paths, and with URLs in place of the names of sources."""
        if not isinstance(given, Mapping):
            return {action: given}
        value: dict[str, Any] = {name: self.resolver.secret(each) for name, each in given.items()}
        if value.get("storage"):
            value["storage"] = tuple(map(self.resolver.path, value["storage"]))
        for name in PATHS:
            if isinstance(value.get(name), str):
                value[name] = self.resolver.path(value[name])
        if action == "health_check":
            value["targets"] = {name: self._target(each) for name, each in value["targets"].items()}
        if action == "http":
            value["headers"] = {name: self.resolver.secret(each) for name, each in value["headers"].items()}
        if action == "sql" and value["dsn"]:
            value["dsn"] = self._url(value["dsn"])
        if action == "restore_drill" and value["into"]:
            value["into"] = self._url(value["into"])
        return self._backup(value) if action == "backup" else value

    def _target(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return a target of a health check with absolute paths."""
        found: dict[str, Any] = {name: self.resolver.secret(each) for name, each in target.items()}
        if target["storage"] is not None:
            found["storage"] = self.resolver.path(target["storage"])
        return found

    def _url(self, source: str | Secret) -> str | Secret:
        """Return the URL of a source, which is given by its name or by its URL."""
        return self.resolver.database(self.sources.get(source, source) if isinstance(source, str) else source)

    def _backup(self, value: dict[str, Any]) -> dict[str, Any]:
        """Add the `url` and the `schema` of the source and the `owner` to the options of a backup."""
        source = value["source"]
        value["url"] = self.own.store if source == HISTORY else self._url(source) if source else None
        value["schema"] = self.own.schema if source == HISTORY else None  # the database may have other schemas
        value["directory"] = value["directory"] or self.own.default_backups
        value["owner"] = backup_owner_at(self.own.state_dir)
        value["keep"] = {name: count for name, count in (value["keep"] or {}).items() if count}
        given = value["encrypt"] or {}
        value["encrypt"] = {
            name: tuple(self.resolver.path(each) if each[:1] in ("/", ".", "~") else each for each in given[name])
            for name in CIPHERS if given.get(name)
        }  # fmt: skip
        return value
