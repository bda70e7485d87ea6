"""The manifest of a backup: a JSON file beside it, and the checks of its content. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from ..core.models import to_text
from ..host.identity import owner_at

VERSION = 1
MANIFEST_LIMIT = 64 * 1024  # bytes; a larger one is not read
ERROR_CHARACTERS = 600
SUFFIX = ".json"
FILENAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}"
RUN_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class BackupOwner(NamedTuple):
    """The daemon that made a backup, with the name of its host. Hosts may share a folder and have jobs of the same name.

    Both values are compared: cloned machines have the same `daemon` (see `host/identity.py`), and hosts may have the same
    name. The backups of a host that was renamed have no owner. That is safer than to delete the last good one of another.
    """

    node: str
    daemon: str

    @property
    def tag(self) -> str:
        """Return a short text that identifies the owner in the name of a file."""
        return hashlib.blake2b("\0".join(self).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of a backup. Sizes are in bytes, digests are SHA-256 in hexadecimal.

    `content_*` describe the output of the source, the other sizes and digests the file, which may be compressed and
    encrypted. `alarms` are the implausible properties of the backup: it is not good until a user accepts it. `verified`,
    `drill`, `hold` and `accepted` are the last results and marks: mappings with `at` and other members, or None.
    """

    filename: str
    job_id: str
    run_id: str
    source: str
    kind: str
    created_at: str
    size_bytes: int
    sha256: str
    content_size_bytes: int
    content_sha256: str
    compress: str = "none"
    encrypt: str = "none"
    sequence: int = 0
    made_with: str = ""
    node: str = ""
    daemon: str = ""
    alarms: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    verified: Mapping[str, Any] | None = None
    drill: Mapping[str, Any] | None = None
    hold: Mapping[str, Any] | None = None
    accepted: Mapping[str, Any] | None = None

    @property
    def owner(self) -> BackupOwner:
        """Return the owner of the backup."""
        return BackupOwner(self.node, self.daemon)

    def is_of(self, owner: BackupOwner) -> bool:
        """Return whether the backup belongs to an owner. Old manifests name no daemon: they belong to any on their host."""
        return self.node == owner.node and self.daemon in ("", owner.daemon)

    @property
    def is_good(self) -> bool:
        """Return whether no check has failed and its alarms, if any, have been accepted."""
        damaged = self.verified is not None and not self.verified.get("is_good")
        return not damaged and not self.is_refuted and (not self.alarms or self.accepted is not None)

    @property
    def is_refuted(self) -> bool:
        """Return whether a drill found that the backup does not contain what it should."""
        return self.drill is not None and bool(self.drill.get("refuted"))

    @property
    def is_proven(self) -> bool:
        """Return whether a drill restored the backup and its assertions held."""
        return self.drill is not None and self.drill.get("ok") is True

    @property
    def doubts(self) -> list[str]:
        """Return the reasons why the backup is not good."""
        if self.is_good:
            return []
        errors = [each.get("error") for each in (self.verified, self.drill) if each]
        return [*self.alarms * (self.accepted is None), *(str(each) for each in errors if each)]


_IS_VALID: Mapping[str, Callable[[Any], bool]] = {  # by the annotation of a field
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "tuple[str, ...]": lambda value: isinstance(value, tuple) and all(isinstance(each, str) for each in value),
    "Mapping[str, Any] | None": lambda value: value is None or isinstance(value, dict),
}
_TYPES: Mapping[str, str] = {each.name: str(each.type) for each in fields(Manifest)}


def instant(text: str) -> datetime:
    """Return an instant of a manifest. Raise ValueError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return at


def to_json(manifest: Manifest) -> bytes:
    """Return the content of the manifest's file."""
    return json.dumps({"version": VERSION, **asdict(manifest)}, indent=1).encode() + b"\n"


def from_json(data: bytes) -> Manifest:
    """Return the manifest in the content of a file. Raise ValueError when it is not a valid one."""
    value = json.loads(data)
    if not isinstance(value, dict) or value.pop("version", None) != VERSION:
        raise ValueError("not a manifest of a backup")
    plain = {name: each for name, each in value.items() if name in _TYPES}
    given: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in plain.items()}
    wrong = [name for name, each in given.items() if not _IS_VALID[_TYPES[name]](each)]
    if wrong:
        raise ValueError(f"the manifest has an invalid {wrong[0]}")
    try:
        manifest = Manifest(**given)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not re.fullmatch(FILENAME, manifest.filename):
        raise ValueError("the manifest has an invalid filename")
    instant(manifest.created_at)
    return manifest


def filename_of(job_id: str, source: str, at: datetime, suffix: str) -> str:
    """Return the name of a backup: its job, its source, and the time at which it was started, in UTC."""
    label = re.sub(r"[^A-Za-z0-9_.-]+", "-", source).strip("-.") or "data"
    return f"{job_id}-{label[:60]}-{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03d}Z{suffix}"


def backup_owner_at(state_dir: str) -> BackupOwner:
    """Return the owner of the backups of the daemon with a state directory on this host."""
    return BackupOwner(socket.gethostname(), owner_at(state_dir).daemon)


def backup_owner_of(order: Mapping[str, Any]) -> BackupOwner:
    """Return the owner that an order names."""
    return BackupOwner(order["node"], order["daemon"])


def shortened(text: str) -> str:
    """Return a text, cut to the length that a manifest may contain."""
    return text if len(text) <= ERROR_CHARACTERS else text[:ERROR_CHARACTERS] + "…"


def stamped(at: datetime, **more: Any) -> dict[str, Any]:
    """Return the record of an event at `at` for a manifest."""
    return {"at": to_text(at), **more}
