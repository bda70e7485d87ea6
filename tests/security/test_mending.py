"""S21, S39: the way out that an error names breaks neither the host nor the home of somebody else."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from schedulerd.backups.catalogue import Catalogue
from schedulerd.backups.source import BackupError
from schedulerd.core.errors import StartError
from schedulerd.host.remedies import remedy_for
from schedulerd.host.trust import why_untrusted
from schedulerd.process.keeper.launch import NotStartedError, launch
from schedulerd.secrets.env_files import variables_for

pytestmark = pytest.mark.root("only root can give files to somebody else")
STRANGER = 65534


def found(mode, uid):
    """What a folder would be like, of which none is changed."""
    return os.stat_result((stat.S_IFDIR | mode, 0, 0, 1, uid, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/", "/home", "/var/lib"])
@pytest.mark.parametrize("mode", [0o777, 0o1777])
@pytest.mark.parametrize("uid", [0, STRANGER])
def test_s21_no_folder_of_the_host_is_given_away_or_closed(folder, mode, uid):
    for wanted in (None, f"{folder}/x"):
        assert not re.search("chmod|chown", remedy_for(folder, found(mode, uid), {0}, 0, wanted, True))


def test_s39_a_folder_of_its_own_is_made_where_all_may_add(tmp_path):
    shared = tmp_path / "a b"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(BackupError, match=r"install -d -m 700 '\S+/a b/NAME'$") as error:
        Catalogue(str(shared))

    subprocess.run(["sh", "-c", str(error.value).rpartition(": ")[2]], check=True)
    Catalogue(str(shared / "NAME")).close()


def test_s39_a_daemon_of_its_own_user_has_that_folder_made_for_it():
    assert "install -d -o nobody -m 700 /tmp/NAME" in remedy_for(
        "/tmp", found(0o1777, 0), {0, STRANGER}, STRANGER, None, True
    )


def test_s21_a_user_without_a_name_stands_in_a_command_by_number():
    nameless = 4_000_000
    assert remedy_for("/srv/x", found(0o755, STRANGER), {nameless}, nameless, None, False) == "chown 4000000 /srv/x"


def test_s21_the_home_of_somebody_else_stays_theirs(tmp_path):
    (tmp_path / "job env").touch()
    os.chown(tmp_path / "job env", STRANGER, STRANGER)
    os.chown(tmp_path, STRANGER, STRANGER)

    assert remedy_for("/var/www", found(0o755, 33), {0}, 0, None, False) == "use another folder"  # the home of www-data
    why = why_untrusted(str(tmp_path / "job env"), {0})
    assert why.endswith(f": install -o root -g root -m 640 '{tmp_path}/job env' '/etc/schedulerd/job env'")
    assert "chown" not in why


def test_s24_a_file_of_variables_of_the_jobs_user_is_left_to_them(tmp_path):
    path = tmp_path / "job.env"
    path.write_text("PATH=/evil\n")
    os.chown(path, STRANGER, STRANGER)

    with pytest.raises(StartError, match=r": remove PATH from it, or set allow_env: \[PATH\]$"):
        variables_for(str(path), [STRANGER], [])


def test_a_command_has_its_path_quoted(tmp_path):
    path = tmp_path / "a b; touch x"
    path.touch()
    path.chmod(0o666)
    why = why_untrusted(str(path), {0})

    subprocess.run(["sh", "-c", why.rpartition(": ")[2]], check=True, cwd=tmp_path)
    assert (why_untrusted(str(path), {0}), os.listdir(tmp_path)) == (None, [path.name])


def test_s39_going_over_to_root_the_package_s_folder_of_backups_names_the_drop_in():
    folder = Path("/var/backups/schedulerd")
    if folder.exists():
        pytest.skip("the package is installed here")
    folder.mkdir(parents=True, mode=0o700)
    try:
        os.chown(folder, STRANGER, STRANGER)
        with pytest.raises(BackupError, match=r": chown root /var/backups/schedulerd; see as-root.conf \(/usr/share/doc/"):
            Catalogue(str(folder))
    finally:
        folder.rmdir()


def test_s39_no_user_is_proposed_for_a_backup_of_the_history(tmp_path):
    os.chown(tmp_path, STRANGER, STRANGER)

    with pytest.raises(BackupError, match=f": chown root {tmp_path}$"):
        Catalogue(str(tmp_path), may_be_theirs=False)


def started_as_nobody(folder, **order):
    output = str(folder / f"out{len(order)}")
    order = {"env": {"USER": "nobody"}, "output": output, "identity": (STRANGER, STRANGER, (STRANGER,)), **order}
    with pytest.raises(NotStartedError) as error:
        launch(order)
    return str(error.value)


def test_s33_who_may_not_start_a_program_or_enter_its_folder_is_named(tmp_path):
    (tmp_path / "private").mkdir(mode=0o700)
    program = tmp_path / "private" / "program"
    program.touch(mode=0o755)

    assert started_as_nobody(tmp_path, argv=[str(program)]).endswith("cannot be started as nobody: Permission denied")
    why = started_as_nobody(tmp_path, argv=["/bin/true"], cwd=f"{tmp_path}/private")
    assert why == f"nobody may not enter the cwd {tmp_path}/private"


@pytest.mark.parametrize(
    ("user", "why"), [("nobody", "is the user of the daemon: remove"), ("games", r"see as-root.conf \(/usr/")]
)
def test_s33_a_daemon_that_is_not_root_names_what_it_needs_for_a_user(user, why):
    code = "import os; from schedulerd.config.account_checks import why_not_root as why; os.setuid(65534);"
    code += f"print(why('user', '{user}'))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert re.search(why, told.stdout)


@pytest.mark.parametrize("name", ["", "/new"])
def test_s39_who_may_not_write_a_backup_is_named_with_the_folder(name):
    code = (
        "import os, sys; from schedulerd.backups.catalogue import Catalogue;"
        "from schedulerd.backups.manifest import BackupOwner as Owner;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "Catalogue(sys.argv[1], True).partial('b', 'r', Owner('n', 'd')).__enter__()"
    )
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        told = subprocess.run([sys.executable, "-c", code, folder + name], capture_output=True, text=True, check=False)

    assert f"nobody cannot write in {folder}\n" in told.stderr
