"""What the catalogue knows of a backup: a JSON object beside it, and the rules about what it may say. Pure."""

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


class Maker(NamedTuple):
    """Whose backups they are: a daemon on a host of that name. Hosts may share a folder, and the names of their jobs.

    Both count: machines that were cloned have the same `daemon` (see `host/identity.py`), hosts may have the same name. A
    host that was given a new name has left its backups to nobody, which is better than to delete another's last good one.
    """

    node: str
    daemon: str

    @property
    def tag(self) -> str:
        """Return what tells makers apart in the name of a file."""
        return hashlib.blake2b("\0".join(self).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """A backup. Sizes are bytes, digests SHA-256 in hex.

    `content_*` are of what the source gave, the others of the file, which may be compressed and encrypted. `alarms` say
    what is odd about it (then it is not good, until somebody accepts it), `verified`, `drill`, `hold` and `accepted` what
    has become of it since: mappings with `at` and more, or None.
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
    def maker(self) -> Maker:
        """Return who has made it."""
        return Maker(self.node, self.daemon)

    def is_of(self, maker: Maker) -> bool:
        """Return whether it is a maker's own. One that does not say its daemon, as they once did not, is its host's."""
        return self.node == maker.node and self.daemon in ("", maker.daemon)

    @property
    def is_good(self) -> bool:
        """Return whether it counts: whole as far as is known, and what was odd about it has been accepted."""
        damaged = self.verified is not None and not self.verified.get("is_good")
        return not damaged and not self.is_refuted and (not self.alarms or self.accepted is not None)

    @property
    def is_refuted(self) -> bool:
        """Return whether a drill found that it has not in it what it should."""
        return self.drill is not None and bool(self.drill.get("refuted"))

    @property
    def is_proven(self) -> bool:
        """Return whether it was restored, and had in it what it should."""
        return self.drill is not None and self.drill.get("ok") is True

    @property
    def doubts(self) -> list[str]:
        """Return why it is not good; nothing when it is."""
        if self.is_good:
            return []
        told = [each.get("error") for each in (self.verified, self.drill) if each]
        return [*self.alarms * (self.accepted is None), *(str(each) for each in told if each)]


_FITS: Mapping[str, Callable[[Any], bool]] = {  # by the annotation of a field
    "str": lambda value: isinstance(value, str),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "tuple[str, ...]": lambda value: isinstance(value, tuple) and all(isinstance(each, str) for each in value),
    "Mapping[str, Any] | None": lambda value: value is None or isinstance(value, dict),
}
_TYPES: Mapping[str, str] = {each.name: str(each.type) for each in fields(Manifest)}


def instant(text: str) -> datetime:
    """Return the instant of a manifest. Raise ValueError."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return at


def to_json(manifest: Manifest) -> bytes:
    """Return the content of the manifest's file."""
    return json.dumps({"version": VERSION, **asdict(manifest)}, indent=1).encode() + b"\n"


def from_json(data: bytes) -> Manifest:
    """Return what a manifest's file says. Raise ValueError when it is none of ours."""
    value = json.loads(data)
    if not isinstance(value, dict) or value.pop("version", None) != VERSION:
        raise ValueError("it is no manifest of a backup")
    plain = {name: each for name, each in value.items() if name in _TYPES}
    given: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in plain.items()}
    wrong = [name for name, each in given.items() if not _FITS[_TYPES[name]](each)]
    if wrong:
        raise ValueError(f"the manifest has a wrong {wrong[0]}")
    try:
        manifest = Manifest(**given)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not re.fullmatch(FILENAME, manifest.filename):
        raise ValueError("the manifest names a file that cannot be a backup")
    instant(manifest.created_at)
    return manifest


def filename_of(job_id: str, source: str, at: datetime, suffix: str) -> str:
    """Return the name of a backup: its job, its source and when it was begun, in UTC."""
    label = re.sub(r"[^A-Za-z0-9_.-]+", "-", source).strip("-.") or "data"
    return f"{job_id}-{label[:60]}-{at:%Y%m%dT%H%M%S}{at.microsecond // 1000:03d}Z{suffix}"


def maker_at(state_dir: str) -> Maker:
    """Return whose backups are those of the daemon with a state directory of this host."""
    return Maker(socket.gethostname(), owner_at(state_dir).daemon)


def maker_of(order: Mapping[str, Any]) -> Maker:
    """Return for whom an order is carried out."""
    return Maker(order["node"], order["daemon"])


def shortened(text: str) -> str:
    """Return a text as a manifest has room for it."""
    return text if len(text) <= ERROR_CHARACTERS else text[:ERROR_CHARACTERS] + "…"


def stamped(at: datetime, **more: Any) -> dict[str, Any]:
    """Return what a manifest says of something that was done at `at`."""
    return {"at": to_text(at), **more}
