"""A part of the control group tree that tests may use, on a machine that has one."""

import os
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from schedulerd.host.cgroups import is_writable_group
from tests.support.leftovers import name_run
from tests.support.waiting import until


def _mounts() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return [line.split()[4] for line in file if " - cgroup2 " in line]


def make_subtree() -> Path:
    """Make a group that is ours, and return its folder; without the right to make any, the test is skipped."""
    for mount in _mounts():
        path = Path(mount, f"schedulerd-test-{name_run()}-{uuid.uuid4().hex[:8]}")
        with suppress(OSError):
            path.mkdir()
            if is_writable_group(str(path)):
                return path
            path.rmdir()
    pytest.skip("no control group (version 2) can be made here")


def remove_subtree(path: Path) -> None:
    """Remove it with all that is below; what still runs there is killed, which takes a moment."""
    with suppress(OSError):
        (path / "cgroup.kill").write_text("1")
    until(lambda: _is_removed(path), "the end of the group")


def _is_removed(path: Path) -> bool:
    for folder, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)
    return not path.exists()
