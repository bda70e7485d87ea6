"""Write the bill of materials of schedulerd, as installed with pip, in CycloneDX 1.6 (JSON).

    python3 packaging/sbom.py [FILE]        (standard output)

It contains the packages of packaging/pinned.txt, whose hashes are those of the files that pip downloads. The output is
reproducible. The Debian package uses the libraries of Debian instead: its control file lists the dependencies.
"""

from __future__ import annotations

import json
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

from pinned import BUILD, HERE, RUNTIME, Pin, read

NAMESPACE = uuid.UUID("a3d1f3f0-6f0e-4a0c-9d0a-3a8c2f1f7b52")  # our namespace: the same content has the same serial number


def bill() -> dict[str, Any]:
    """Return the bill of materials."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    runtime, build = read(RUNTIME), read(BUILD)
    content = {
        "metadata": {
            "lifecycles": [{"phase": "pre-build"}],
            "component": {
                "type": "application", "bom-ref": own, "purl": own, "name": project["name"], "version": project["version"],
                "description": project["description"], "licenses": [{"license": {"id": project["license"]["text"]}}],
            },
        },
        "components": [*(_component(pin, "required") for pin in runtime), *(_component(pin, "excluded") for pin in build)],
        "dependencies": _dependencies(own, project["name"], runtime),
    }  # fmt: skip
    number = uuid.uuid5(NAMESPACE, json.dumps(content, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{number}", "version": 1, **content}


def _reference(pin: Pin) -> str:
    return f"pkg:pypi/{pin.name}@{pin.version}"


def _component(pin: Pin, scope: str) -> dict[str, Any]:
    """Return a library. The scope `excluded` is that of build dependencies."""
    found = {
        "type": "library", "bom-ref": _reference(pin), "purl": _reference(pin), "name": pin.name, "version": pin.version,
        "scope": scope,
    }  # fmt: skip
    marker = {"properties": [{"name": "schedulerd:marker", "value": pin.marker}]} if pin.marker else {}
    return found | marker


def _dependencies(own: str, name: str, pins: list[Pin]) -> list[dict[str, Any]]:
    """Return the dependencies: the list names, for each package, the packages that require it."""
    needs: dict[str, list[str]] = {own: [], **{_reference(pin): [] for pin in pins}}
    reference_of = {name: own, **{pin.name: _reference(pin) for pin in pins}}
    for pin in pins:
        for each in pin.via:
            needs[reference_of[each]].append(_reference(pin))
    return [{"ref": each, "dependsOn": sorted(of)} for each, of in needs.items()]


def main() -> None:
    """Write the bill of materials."""
    text = json.dumps(bill(), indent=2) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
