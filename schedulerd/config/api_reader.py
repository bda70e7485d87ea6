"""The settings of the API: from the values of the file to `ApiSettings`."""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Mapping
from typing import Any

from .config import ApiSettings, Peer
from .fields import Path, Report
from .resolver import Resolver
from .settings import API

MAX_PORT = 65535


def read_api(top: Mapping[str, Any], resolver: Resolver, report: Report, warn: Report) -> ApiSettings:
    """Return the settings of `api:` in the top level `top` of a file, after reporting what is wrong with them."""
    given = top["api"] or {name: option.default for name, option in API.items()}
    host, port = _address(given["listen"], report)
    for index, peer in enumerate(given["peers"]):
        _check_peer(peer, ("api", "peers", index), report, warn)
    return ApiSettings(
        socket=resolver.path(given["socket"] or os.path.join(top["state_dir"], "schedulerd.sock")),
        socket_group=given["socket_group"], peers=tuple(Peer(**peer) for peer in given["peers"]),
        host=host, port=port, allow_plain_remote=given["allow_plain_remote"], hosts=given["hosts"],
        trusted_proxy=given["trusted_proxy"],
    )  # fmt: skip


def _address(listen: str | None, report: Report) -> tuple[str | None, int]:
    """Return the host and the port of `HOST:PORT`."""
    if not listen:
        return None, 0
    host, _, text = listen.rpartition(":")
    port = int(text) if re.fullmatch("[0-9]{1,5}", text) else 0
    if port > MAX_PORT:
        report(("api", "listen"), f"invalid port {port}: expected 0 to {MAX_PORT}")
    return host.strip("[]"), port


def _check_peer(peer: Mapping[str, Any], path: Path, report: Report, warn: Report) -> None:
    if bool(peer["user"]) == bool(peer["group"]):
        report(path, "expected either user or group")
    elif not _is_known(peer):
        key = "user" if peer["user"] else "group"
        warn((*path, key), f"{key} {peer[key]!r} does not exist on this host now")


def _is_known(peer: Mapping[str, Any]) -> bool:
    """Return whether this host has the user or group of a peer. A number needs no entry."""
    name = peer["user"] or peer["group"]
    look_up = pwd.getpwnam if peer["user"] else grp.getgrnam
    try:
        return name.isdigit() or bool(look_up(name))
    except KeyError:
        return False
