"""Splits URLs of databases into a part that other users may see in `ps` and secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from .source import BackupError

TLS_FILES = {
    "ssl_ca_certs": "ca_certs", "ssl_ca_path": "ca_path", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile",
    "ssl_password": "key_password",
}  # fmt: skip
TLS_WORDS = (*TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
NO = ("", "0", "f", "false", "n", "no")  # as in redis-py
_HOST = r"(\[[^\]/?]*\]|[^:,\[\]]*)(:[0-9]*)?"  # with its port


@dataclass(frozen=True)
class _Parts:
    """The parts of a PostgreSQL URL, not decoded."""

    scheme: str
    userinfo: str
    hosts: str
    path: str
    query: str


def postgresql(url: str) -> tuple[str, dict[str, str]]:
    """Return a PostgreSQL URL without its password, and environment variables of libpq that contain it.

    Raise BackupError for a secret that has no environment variable.
    """
    parts = _parts(url)
    user, _, password = parts.userinfo.partition(":")
    query = _query(parts.query)
    given = dict(query)
    if "sslpassword" in given:
        raise BackupError("a URL with sslpassword cannot be passed to pg_dump secretly: use a key without a password")
    password = given.get("password", unquote(password))
    env = {"PGPASSWORD": password} if password else {}
    if "passfile" in given:
        env["PGPASSFILE"] = given["passfile"]
    left = [(name, value) for name, value in query if name not in ("password", "passfile")]
    return _joined(replace(parts, userinfo=user), left), env


def with_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server. Raise BackupError."""
    parts = _parts(url)
    query = [(key, value) for key, value in _query(parts.query) if key != "dbname"]
    return _joined(replace(parts, path="/" + quote(name, safe="")), query)


def _parts(url: str) -> _Parts:
    """Split a URL as libpq does: the part before the first `@` may contain any character except `/`.

    Raise BackupError, without the URL, when a part of a password could be taken for another part.
    """
    scheme, _, rest = url.partition("://")
    before = re.match(r"([^@/]*)@", rest)
    place, _, query = rest[before.end() if before else 0 :].partition("?")
    hosts, slash, database = place.partition("/")
    is_clear = "@" not in place and re.fullmatch(rf"{_HOST}(,{_HOST})*", hosts)
    if not is_clear or not all("=" in each for each in query.split("&") if each):
        raise BackupError("the PostgreSQL URL is ambiguous: write an @ in its user or password as %40, and a / as %2F")
    return _Parts(scheme, before[1] if before else "", hosts, slash + database, query)


def _query(text: str) -> list[tuple[str, str]]:
    """Return names and values as libpq decodes them: a `+` is not a space."""
    pairs = (each.partition("=") for each in text.split("&") if each)
    return [(unquote(name), unquote(value)) for name, _, value in pairs]


def _joined(parts: _Parts, query: list[tuple[str, str]]) -> str:
    text = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query)
    user = f"{parts.userinfo}@" if parts.userinfo else ""
    return f"{parts.scheme}://{user}{parts.hosts}{parts.path}" + (f"?{text}" if text else "")


@dataclass(frozen=True)
class RedisTls:
    """The TLS settings of a rediss:// URL, named as in redis-py (`ssl_ca_certs=/path`). All is verified by default."""

    ca_certs: str | None = None
    ca_path: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    key_password: str | None = None
    is_verified: bool = True
    checks_host: bool = True


@dataclass(frozen=True)
class RedisServer:
    """The address of a Redis server, `path` of its socket or `host` and `port`, and how `redis-cli` authenticates."""

    path: str | None
    host: str
    port: int
    tls: RedisTls | None
    login: tuple[str, ...]
    env: dict[str, str]


def redis(url: str) -> RedisServer:
    """Return the server of a redis://, rediss:// or unix:// URL. Raise BackupError."""
    parts, port = _redis_parts(url)
    query = dict(parse_qsl(parts.query))
    user, password = unquote(parts.username or query.get("username", "")), unquote(parts.password or "")
    password = password or query.get("password", "")
    return RedisServer(
        path=unquote(parts.path) if parts.scheme == "unix" else None,
        host=parts.hostname or "localhost",
        port=port,
        tls=_tls(query) if parts.scheme == "rediss" else None,
        login=("--user", user) if user else (),
        env={"REDISCLI_AUTH": password} if password else {},
    )


def _redis_parts(url: str) -> tuple[SplitResult, int]:
    """Return the parts and the port of a URL. Raise BackupError, without the URL, which may contain a password."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
    except ValueError:
        parts, port = None, 0
    if parts is None or parts.fragment or (parts.scheme != "unix" and "@" in parts.path):
        raise BackupError("the Redis URL is invalid: write / ? # [ ] in its user or password as %2F %3F %23 %5B %5D")
    return parts, port


def _tls(query: Mapping[str, str]) -> RedisTls:
    given = {name: value for name, value in query.items() if name.startswith("ssl_")}
    is_verified = given.pop("ssl_cert_reqs", "required") != "none"
    checks_host = given.pop("ssl_check_hostname", "yes").lower() not in NO
    unknown = sorted(given.keys() - TLS_FILES.keys())
    if unknown:
        raise BackupError(f"the Redis URL has the unknown parameter {unknown[0]}: expected one of {', '.join(TLS_WORDS)}")
    files = {TLS_FILES[name]: value for name, value in given.items()}
    return RedisTls(**files, is_verified=is_verified, checks_host=is_verified and checks_host)
