"""Resolves the relative paths of a configuration, including those in secrets and in URLs of SQLite files."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TypeVar

from ..core.models import Secret
from .settings_actions import SQLITE

Value = TypeVar("Value")


@dataclass(frozen=True)
class Resolver:
    """Resolves paths against the folder `base`, that of the main file."""

    base: str

    def path(self, path: str) -> str:
        """Return a path made absolute, `~` expanded."""
        return re.sub("^//+", "/", os.path.normpath(os.path.join(self.base, os.path.expanduser(path))))

    def secret(self, value: Value) -> Value | Secret:
        """Return a value. When it is a secret in a file, the path of the file is absolute."""
        if isinstance(value, Secret) and value.source == "file":
            return Secret("file", self.path(value.name))
        return value

    def database(self, url: str | Secret) -> str | Secret:
        """Return the URL of a database, or the secret that contains it. The path of a SQLite file is absolute."""
        if isinstance(url, str) and url.startswith(SQLITE):
            return "sqlite://" + self.path(url.removeprefix("sqlite://"))
        return self.secret(url)
