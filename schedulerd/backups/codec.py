"""Compresses and encrypts backups, and reverses that, with standard programs: a restore does not need schedulerd.

To restore manually: `age --decrypt -i KEY` or `gpg --decrypt`, then `zstd -dc` or `gzip -dc`, by the suffix of the file.
"""

from __future__ import annotations

import os
import tempfile

from .commands import Tool, call_all
from .manifest import Manifest
from .source import BackupError, Order

COMPRESS = {"gzip": (".gz", ["gzip", "-c"]), "zstd": (".zst", ["zstd", "-q", "-c", "-T0"])}
DECOMPRESS = {"gzip": ["gzip", "-dc"], "zstd": ["zstd", "-q", "-dc"]}
ENCRYPTED = {"age": ".age", "gpg": ".gpg"}


def suffix_of(order: Order) -> str:
    """Return the suffixes of the compression and the encryption of an order."""
    compressed = COMPRESS[order["compress"]][0] if order["compress"] in COMPRESS else ""
    return compressed + ENCRYPTED.get(order["encrypt"], "")


def is_wrapped(order: Order) -> bool:
    """Return whether a backup is compressed or encrypted."""
    return bool(suffix_of(order))


def wrap(order: Order, content: str, target: str, scratch: str) -> None:
    """Write `content` to `target`, compressed and encrypted according to the order. Raise BackupError."""
    tools = [Tool(COMPRESS[order["compress"]][1])] if order["compress"] in COMPRESS else []
    if order["encrypt"] == "age":
        tools.append(Tool(["age", "--encrypt", *_age_recipients(order["recipients"])]))
    elif order["encrypt"] == "gpg":
        tools.append(Tool([*_gpg(order["recipients"], scratch), "--encrypt", *_gpg_recipients(order["recipients"])]))
    with open(content, "rb") as source, open(target, "xb") as sink:
        call_all(tools, source, sink)


def unwrap(order: Order, manifest: Manifest, file: int, target: str) -> None:
    """Write the content of a backup, whose file is open as `file`, to `target`. Raise BackupError."""
    with open(file, "rb", closefd=False) as source, open(target, "xb") as sink:
        tools = _reverse_tools(order, manifest)
        call_all(tools or [Tool(["cat"])], source, sink)


def check_wrapped(path: str, compress: str, content_sha256: str) -> None:
    """Decompress a file that is not encrypted, and compare it with the content. Raise BackupError when they differ."""
    with open(path, "rb") as source, tempfile.TemporaryFile() as found:
        call_all([Tool(DECOMPRESS[compress]), Tool(["sha256sum"])], source, found)
        found.seek(0)
        is_same = found.read(64).decode() == content_sha256
    if not is_same:
        raise BackupError(f"the output of {compress} does not decompress to its input")


def _reverse_tools(order: Order, manifest: Manifest) -> list[Tool]:
    tools = []
    if manifest.encrypt == "age":
        if not order.get("age_identity"):
            raise BackupError("the backup is encrypted with age: set age_identity of the drill to the private key")
        tools.append(Tool(["age", "--decrypt", "-i", order["age_identity"]]))
    elif manifest.encrypt == "gpg":
        home = ["--homedir", order["gnupg_home"]] if order.get("gnupg_home") else []
        tools.append(Tool(["gpg", "--batch", "--no-tty", "--quiet", *home, "--decrypt"]))
    return [*tools, *([Tool(DECOMPRESS[manifest.compress])] if manifest.compress in DECOMPRESS else [])]


def _age_recipients(recipients: list[str]) -> list[str]:
    return [word for each in recipients for word in ("-R" if os.path.isabs(each) else "-r", each)]


def _gpg_recipients(recipients: list[str]) -> list[str]:
    return [word for each in recipients for word in ("--recipient-file" if os.path.isabs(each) else "--recipient", each)]


def _gpg(recipients: list[str], scratch: str) -> list[str]:
    argv = ["gpg", "--batch", "--no-tty", "--quiet", "--no-autostart", "--trust-model", "always"]
    if not all(map(os.path.isabs, recipients)):
        return argv  # keys of the key ring of the user
    home = os.path.join(scratch, "gnupg")
    os.mkdir(home, 0o700)
    return [*argv, "--homedir", home]
