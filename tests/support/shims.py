"""Small libraries in C that come between a program and libc (LD_PRELOAD); each is compiled once in a session."""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


@functools.cache
def shim(name: str) -> Path:
    """Return the library made of `NAME.c`; without a compiler the test is skipped, and in CI it fails."""
    if shutil.which("gcc") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("gcc is not installed (tests/install-servers)")
    built = Path(tempfile.mkdtemp(prefix=f"schedulerd-{name}-")) / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(built), str(source), "-ldl"], check=True)
    return built
