"""Making a folder."""

import pytest

from schedulerd.host.files import make_folders
from schedulerd.host.trust import trusted


def test_created_parent_folders_are_accessible_to_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert make_folders("a/b/state", 0o700, trusted()) is None

    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "state"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o755, 0o755, 0o700]


def test_an_error_names_the_whole_path(tmp_path):
    with pytest.raises(OSError) as error:
        make_folders(f"{tmp_path}/a/{'long' * 100}/b", 0o700, trusted())
    assert error.value.filename == f"{tmp_path}/a/{'long' * 100}"
