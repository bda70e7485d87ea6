"""S21, S39: what others can change decides nothing that runs; the error names path, owner, mode and the way out."""

import os
import pwd
import re
import struct
import subprocess

import pytest

from schedulerd.actions.backup import prepare_backup, prepare_restore_drill
from schedulerd.actions.environment import environment
from schedulerd.actions.helpers import prepare_python, prepare_sql
from schedulerd.config.loader import load
from schedulerd.core.errors import ConfigError, SecretError, StartError
from schedulerd.core.models import Secret
from schedulerd.host.trust import why_untrusted
from schedulerd.secrets.references import resolve
from tests.support.builders import a_job, a_run

pytestmark = pytest.mark.root("only root can give files to somebody else")

STRANGER, GAMES = 65534, 60


def of_a_stranger(path):
    os.chown(path, STRANGER, STRANGER)


def writable_by_its_group(path):
    os.chown(path, 0, GAMES)
    path.chmod(0o664)


def writable_by_all(path):
    path.chmod(0o646)


def in_a_folder_of_a_stranger(path):
    os.chown(path.parent, STRANGER, STRANGER)


def in_a_folder_that_all_may_write(path):
    path.parent.chmod(0o777)


def below_a_folder_that_a_group_may_write(path):
    os.chown(path.parent.parent, 0, GAMES)
    path.parent.parent.chmod(0o775)


def behind_a_link_of_a_stranger(path):
    real = path.rename(path.with_name("real"))
    path.symlink_to(real)
    os.lchown(path, STRANGER, STRANGER)


def behind_a_link_into_a_folder_of_a_stranger(path):
    place = path.parent.parent / "theirs"
    place.mkdir()
    path.symlink_to(path.rename(place / "real"))
    os.chown(place, STRANGER, STRANGER)


def writable_by_a_stranger_with_an_acl(path):
    give_by_acl(path.parent, STRANGER)


def of_a_stranger_and_their_own_group(path):
    other = pwd.getpwnam("www-data")
    os.chown(path, other.pw_uid, other.pw_gid)
    path.chmod(0o660)


def give_by_acl(path, uid):
    """Let a user write, as `setfacl --modify u:UID:rwx` does: its owner's group seems to."""
    users, mask, nobody = 2, 16, 2**32 - 1
    entries = [(1, 7, nobody), (users, 7, uid), (4, 0, nobody), (mask, 7, nobody), (32, 0, nobody)]
    os.setxattr(path, "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries))


THEIRS = r"\(owner nobody, mode 0755\).*"
MOVE = "move it and use the new path: install -o root -g root -m 640"
DOUBTS = [
    (writable_by_a_stranger_with_an_acl, r"its folder \S+/in \(owner root, mode 0770\).*: chmod go-w \S+/in$"),
    (of_a_stranger_and_their_own_group, r"env \(owner www-data, mode 0660\).*: chown root (\S+/env) && chmod go-w \1$"),
    (of_a_stranger, r"env \(owner nobody, mode 0600\).*: chown root \S+/env$"),
    (writable_by_its_group, r"env \(owner root, mode 0664\).*: chmod go-w \S+/env$"),
    (writable_by_all, r"env \(owner root, mode 0646\).*: chmod go-w \S+/env$"),
    (in_a_folder_of_a_stranger, rf"its folder \S+/in {THEIRS}: {MOVE} \S+/in/env /etc/schedulerd/env"),
    (in_a_folder_that_all_may_write, r"its folder \S+/in \(owner root, mode 0777\).*: chmod go-w \S+/in$"),
    (below_a_folder_that_a_group_may_write, r"its folder \S+ \(owner root, mode 0775\).*: chmod go-w"),
    (behind_a_link_of_a_stranger, r"env \(owner nobody, mode 0777\).*: chown -h root \S+/env$"),
    (behind_a_link_into_a_folder_of_a_stranger, rf"its folder \S+/theirs {THEIRS}: {MOVE} \S+/real /etc/schedulerd/real"),
]


@pytest.fixture
def file(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    made = folder / "env"
    made.write_text("PATH=/tmp/evil\n")
    made.chmod(0o600)
    return made


def env_file(path):
    environment(a_job(env_files=(str(path),)), a_run(), "/tmp/out.log")


def secret(path):
    resolve(Secret("file", str(path)))


def statement(path):
    options = {"dsn": "sqlite:///x.db", "file": str(path), "statement": None, "statement_timeout": 0}
    prepare_sql(a_job(action="sql", options=options), a_run(), "/tmp/out.log")


def configuration(path):
    load(str(path))


@pytest.mark.parametrize(("spoil", "why"), DOUBTS)
@pytest.mark.parametrize("read", [env_file, secret, statement, configuration])
def test_what_others_can_change_is_refused_with_the_command_that_mends_it(file, read, spoil, why):
    spoil(file)

    with pytest.raises((StartError, SecretError, ConfigError)) as error:
        read(file)
    assert re.search(why, str(error.value))
    _, words, command = str(error.value).partition("can be changed by others than root: ")
    assert words
    if not command.startswith("move it"):  # the test moves nothing into /etc
        subprocess.run(["sh", "-c", command], check=True)
        assert why_untrusted(str(file), {0}) is None


@pytest.mark.parametrize("read", [env_file, secret, statement, configuration])
def test_s21_a_pipe_is_refused_and_not_awaited(file, read):
    file.unlink()
    os.mkfifo(file, 0o600)

    with pytest.raises((StartError, SecretError, ConfigError), match="regular file"):
        read(file)


def test_s21_what_is_swapped_while_it_is_read_is_refused(file):
    ours = file.with_name("ours")
    ours.touch(0o600)
    of_a_stranger(file)  # who had a link to ours in its place when it was opened

    with ours.open() as opened:
        assert "can be changed by others than root" in why_untrusted(str(file), {0}, opened.fileno())


def test_the_group_that_the_user_of_the_daemon_alone_is_in_may_write(file):
    other = pwd.getpwnam("www-data")
    os.chown(file.parent, 0, other.pw_gid)
    file.parent.chmod(0o770)

    assert why_untrusted(str(file), {0, other.pw_uid}) is None
    assert "chmod go-w" in why_untrusted(str(file), {0})


def test_a_folder_of_modules_that_others_can_change_is_refused(file):
    in_a_folder_of_a_stranger(file)
    job = a_job(action="python", options={"call": "a:b", "args": (), "kwargs": {}}, python_path=(str(file.parent),))

    with pytest.raises(StartError, match=r"python_path \S+/in is not used: \S+/in \(owner nobody, mode 0755\)"):
        prepare_python(job, a_run(), "/tmp/out.log")


DRILL = {"age_identity": None, "gnupg_home": None, "pg_bin": None, "into": None}


@pytest.mark.parametrize("setting", ["gnupg_home", "pg_bin", "age_identity"])
def test_s21_whose_programs_and_keys_a_drill_uses_is_looked_at(file, setting):
    in_a_folder_of_a_stranger(file)  # a gpg.conf there names a program that gpg runs
    job = a_job(action="restore_drill", options={**DRILL, setting: str(file.parent)})

    with pytest.raises(StartError, match=rf"the {setting} \S+/in is not used: \S+/in {THEIRS}: chown root"):
        prepare_restore_drill(job, a_run(), "/tmp/out.log")


@pytest.mark.parametrize("cipher", ["age", "gpg"])
def test_s21_s39_others_do_not_choose_who_can_read_a_backup(file, cipher):
    of_a_stranger(file)
    job = a_job(action="backup", options={"url": None, "encrypt": {cipher: (str(file),)}})

    with pytest.raises(StartError, match=rf"the {cipher} \S+/env is not used: \S+/env \(owner nobody"):
        prepare_backup(job, a_run(), "/tmp/out.log")


def test_a_job_may_use_the_files_of_its_user(file):
    of_a_stranger(file)
    in_a_folder_of_a_stranger(file)

    job = a_job(env_files=(str(file),), user="nobody", allowed_env=("PATH",))
    assert environment(job, a_run(), "/tmp/out.log")["PATH"] == "/tmp/evil"
    assert environment(a_job(env={"A": Secret("file", str(file))}, user="nobody"), a_run(), "/tmp/out.log")["A"]


def test_a_file_of_root_in_a_folder_where_others_may_only_add_is_trusted(file):
    file.parent.chmod(0o1777)

    assert resolve(Secret("file", str(file))) == "PATH=/tmp/evil"


def test_a_link_of_root_to_a_file_of_root_is_trusted(file):
    link = file.with_name("link")
    link.symlink_to(file)

    assert resolve(Secret("file", str(link))) == "PATH=/tmp/evil"


def test_a_secret_that_all_can_read_is_warned_of_once(file, caplog):
    file.chmod(0o644)
    for _ in range(2):
        secret(file)

    assert [record.getMessage() for record in caplog.records] == [
        f"the secret {file} can be read by all users: chmod o-r {file}"
    ]
