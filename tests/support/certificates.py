"""Certificate authorities of the tests' own, and what they have signed: made by openssl, good for two days."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import find

EXTENSIONS = """
[req]
distinguished_name = names
[names]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[signed]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:{name}
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, and the certificate of who signed it."""

    path: Path
    key: Path
    authority: Path


class Authority:
    """Who signs. `certificate` is the file by which others trust it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.certificate = self._made(name, "authority").path

    def sign(self, name: str) -> Certificate:
        """Return a certificate for a host, or for a client of that name."""
        return self._made(name, "signed", "-CA", str(self.folder / "ca.pem"), "-CAkey", str(self.folder / "ca.key"))

    def _made(self, name: str, kind: str, *signed_by: str) -> Certificate:
        stem = "ca" if kind == "authority" else name
        made = Certificate(self.folder / f"{stem}.pem", self.folder / f"{stem}.key", self.folder / "ca.pem")
        settings = self.folder / f"{stem}.cnf"
        settings.write_text(EXTENSIONS.format(name=name))
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(made.key))
        subprocess.run(
            [find("openssl"), "req", "-x509", *key, *signed_by, "-config", str(settings), "-extensions", kind,
             "-subj", f"/CN={name}", "-days", "2", "-out", str(made.path)],
            check=True, capture_output=True,
        )  # fmt: skip
        return made
