"""What killed backups have left is removed from each folder, and what was removed or stays is told in the log."""

import os
import shutil
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schedulerd.backups.catalogue import Catalogue
from schedulerd.backups.manifest import BackupOwner
from schedulerd.core.models import new_run_id
from schedulerd.service.backup_clearing import BackupClearing
from tests.support.waiting import until

HERE = BackupOwner("host", "daemon")
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def left_in(folder: Path) -> Path:
    """Leave what a backup leaves that was killed, and return its folder."""
    with Catalogue(str(folder), is_created=True) as catalogue, catalogue.partial("b", new_run_id(NOON), HERE) as scratch:
        pass
    left = Path(scratch)
    left.mkdir()
    (left / "content").write_bytes(b"in the clear")
    return left


def clear(*folders: Path) -> None:
    BackupClearing(lambda: {str(folder): [] for folder in folders}, HERE).clear_all()
    until(lambda: all(thread.name != "clearing" for thread in threading.enumerate()), "the end of the clearing")


def test_a_folder_that_cannot_be_cleared_keeps_no_unfinished_backup_in_the_next(tmp_path, caplog):
    (tmp_path / "real").mkdir()
    (tmp_path / "first").symlink_to(tmp_path / "real")  # which no catalogue follows
    left = left_in(tmp_path / "second")
    caplog.set_level("INFO", "schedulerd.service.backup_clearing")

    clear(tmp_path / "first", tmp_path / "second")

    assert not left.exists()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert f"cannot remove partial backups in {tmp_path}/first: " in caplog.text
    assert f"removed partial backups in {tmp_path}/second: {left.name}" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("chattr") is None, reason="an immutable file needs root and chattr")
def test_an_unfinished_backup_that_cannot_be_removed_is_told(tmp_path, caplog):
    left = left_in(tmp_path / "folder")
    if subprocess.run(["chattr", "+i", left / "content"], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        clear(tmp_path / "folder")
    finally:
        subprocess.run(["chattr", "-i", left / "content"], check=True)

    assert f"cannot remove {left}, an unfinished backup that may not be encrypted: " in caplog.text
