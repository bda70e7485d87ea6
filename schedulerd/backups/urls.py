"""URLs of databases, taken apart into what may be seen in `ps` and what may not. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from . import BackupError


def postgresql(url: str) -> tuple[str, dict[str, str]]:
    """Return a PostgreSQL URL without its password, and the environment that has it (libpq, "Environment Variables").

    Raise BackupError for what has no place outside of the URL.
    """
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    query = _query(parts.query)
    given = dict(query)
    if "sslpassword" in given:
        raise BackupError("a URL with sslpassword cannot be handed to pg_dump unseen: use a key without a password")
    password = given.get("password", unquote(password))
    env = {"PGPASSWORD": password} if password else {}
    if "passfile" in given:
        env["PGPASSFILE"] = given["passfile"]
    left = [(name, value) for name, value in query if name not in ("password", "passfile")]
    return _joined(parts.scheme, user + at + host, parts.path, left), env


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    parts = urlsplit(url)
    query = [(key, value) for key, value in _query(parts.query) if key != "dbname"]
    return _joined(parts.scheme, parts.netloc, "/" + quote(name, safe=""), query)


def _query(text: str) -> list[tuple[str, str]]:
    """Return names and values as libpq reads them: a `+` is a `+`."""
    pairs = (each.partition("=") for each in text.split("&") if each)
    return [(unquote(name), unquote(value)) for name, _, value in pairs]


def _joined(scheme: str, place: str, path: str, query: list[tuple[str, str]]) -> str:
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
    return f"{scheme}://{place}{path}" + (f"?{text}" if text else "")


@dataclass(frozen=True)
class RedisServer:
    """Where a Redis is, as `redis-cli` wants it told."""

    arguments: tuple[str, ...]
    env: dict[str, str]


def redis(url: str) -> RedisServer:
    """Return how `redis-cli` reaches the server of a redis://, rediss:// or unix:// URL. Raise BackupError."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    user, password = unquote(parts.username or query.get("username", "")), unquote(parts.password or "")
    password = password or query.get("password", "")
    if parts.scheme == "unix":
        arguments = ["-s", unquote(parts.path)]
    else:
        arguments = ["-h", parts.hostname or "localhost", "-p", str(parts.port or 6379)]
    if parts.scheme == "rediss":
        arguments.append("--tls")
        files = (("ssl_ca_certs", "--cacert"), ("ssl_certfile", "--cert"), ("ssl_keyfile", "--key"))
        arguments += [word for name, flag in files if name in query for word in (flag, query[name])]
    if user:
        arguments += ["--user", user]
    return RedisServer(tuple(arguments), {"REDISCLI_AUTH": password} if password else {})
