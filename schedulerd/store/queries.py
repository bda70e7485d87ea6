"""SQL is in files: `-- name --` starts a query, and the comment below it explains the query."""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- ([a-z_]+) --$", re.MULTILINE)


def load_queries(backend: str) -> dict[str, str]:
    """Return the queries of `sql/<backend>/queries.sql` by name."""
    text = (files(__package__) / "sql" / backend / "queries.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def load_migrations(backend: str) -> list[tuple[int, str, str]]:
    """Return (number, name, SQL) of each file in `sql/<backend>/migrations`, in order."""
    folder = files(__package__) / "sql" / backend / "migrations"
    found = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(int(name[:4]), name, (folder / name).read_text(encoding="utf-8")) for name in found]


def load_schema(backend: str) -> str:
    """Return `sql/<backend>/schema.sql`: the result of all migrations."""
    return (files(__package__) / "sql" / backend / "schema.sql").read_text(encoding="utf-8")
