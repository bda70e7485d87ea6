"""S4, S5: what stands in `tokens.json`, who may read it, and what of a token is kept. What is not known there is refused."""

import hashlib
import json
import os
import pwd
import re
import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from schedulerd.api.auth import FAILURES
from schedulerd.api.token_file import parse_tokens, read_tokens
from schedulerd.api.tokens import Tokens
from schedulerd.cli.client import PREFIX, Client, ClientError
from schedulerd.core.clock import SystemClock
from schedulerd.core.errors import UnsafeError
from schedulerd.host.files import write_private

TEXT = "a-token-of-4711-of-ours"
DIGEST = hashlib.sha256(TEXT.encode()).hexdigest()
GOOD = {"id": "grafana", "sha256": DIGEST, "role": "viewer", "expires_at": None}
needs_root = pytest.mark.root("only root can give files away")
OTHER = {**GOOD, "id": "other", "sha256": "0" * 64}


def written(*entries, **more):
    return json.dumps({"tokens": entries, **more})


def changed(**more):
    return written({**GOOD, **more})


MISTAKES = [
    (
        changed(scope=["nightly"]),
        "token 1 (grafana): unknown key 'scope': known are id, sha256, role, created_at, expires_at",
    ),
    (changed(expire_at="2020-01-01T00:00:00Z"), "unknown key 'expire_at' (did you mean 'expires_at'?)"),
    (changed(**{"a" * 50: 1}), "unknown key of 50 characters"),
    (written(GOOD, scopes=[]), "unknown key 'scopes': known are tokens"),
    (changed(role="root"), "role: expected viewer or operator or admin, not 'root'"),
    (changed(role="operater"), "not 'operater' (did you mean 'operator'?)"),
    (changed(role=3), "role: expected viewer or operator or admin, not a number"),
    (changed(role=None), "role: expected viewer or operator or admin, not nothing"),
    (
        changed(sha256="text"),
        "sha256: expected the 64 hex digits of `printf %s TEXT | sha256sum`, not a text of 4 characters",
    ),
    (changed(sha256=DIGEST[:-2]), "sha256: expected the 64 hex digits"),
    (changed(sha256=" " + DIGEST[1:]), "sha256: expected the 64 hex digits"),
    (changed(id=7), "token 1: id: expected a name"),
    *((changed(id=wrong), "token 1: id: expected a name") for wrong in ("a\nb", "a\u202eb", " ", "", "x" * 65)),
    (changed(expires_at="2027-01-01T00:00:00"), "expires_at: expected null or a time with a zone"),
    (changed(expires_at=""), "expires_at: expected null or a time with a zone"),
    (changed(expires_at=False), "expires_at: expected null or a time with a zone"),
    (changed(created_at={}), "created_at: expected null or a time with a zone, such as 2027-01-31T06:00:00Z, not a mapping"),
    (written({"id": "x", "role": "viewer"}), "token 1 (x): sha256 is missing"),
    (written({"id": "x", "sha256": DIGEST}), "token 1 (x): role is missing"),
    (written(GOOD, {**OTHER, "id": "grafana"}), "token 2 (grafana) has the id of token 1"),
    (written(GOOD, {**OTHER, "sha256": DIGEST.upper()}), "token 2 (other) has the sha256 of token 1"),
    (written("text"), "token 1: expected {…} with id, sha256, role, created_at, expires_at, not a text of 4 characters"),
    (changed().replace('"role"', '"role": "admin", "role"'), "token 1 (grafana): the key 'role' occurs 2 times"),
    ("[]", "it must have the form"),
    ('{"tokens": {}}', "it must have the form"),
    ('{"token": []}', "it must have the form"),
    ('{"tokens": [', "it is not JSON"),
    ("[" * 100_000, "it is not JSON"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_s5_what_is_not_known_in_the_file_of_tokens_is_refused_with_its_place(text, words):
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        parse_tokens(text.encode())
    assert DIGEST not in str(refused.value).lower()


def test_s5_every_mistake_is_told_at_once():
    with pytest.raises(ValueError, match=r"^token 1 \(grafana\): unknown key 'scope'.*; token 2 \(other\): role: expected"):
        parse_tokens(written({**GOOD, "scope": 1}, {**OTHER, "role": "x"}).encode())


def test_s5_a_good_file_is_taken_as_it_always_was():
    first = {**GOOD, "role": "Operator", "created_at": "2026-01-01T00:00:00Z"}
    made = parse_tokens(written(first, {**OTHER, "id": "Büro/Süd (2)"}).encode())

    assert [(each.token_id, each.role.name) for each in made] == [("grafana", "OPERATOR"), ("Büro/Süd (2)", "VIEWER")]


def _fifo(path):
    path.unlink()
    os.mkfifo(path, 0o600)


def _link(path):
    path.rename(path.with_name("away"))
    path.symlink_to(path.with_name("away"))


def _given(path):
    os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)


def _given_to_all(path):
    _given(path)
    path.chmod(0o644)


@pytest.fixture
def shared_folder():
    """A folder that everybody gets to; pytest's own are for their owner alone."""
    with TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        yield Path(place)


@contextmanager
def as_nobody():
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.chmod(0o640), "its mode 0640; .*: chmod 600 /"),
        (lambda path: path.chmod(0o604), "its mode 0604; .*: chmod 600 /"),
        pytest.param(_given_to_all, "is nobody and its mode 0644; .*: chown -h root /.* && chmod 600 /", marks=needs_root),
    ],
)
def test_s5_a_file_of_tokens_that_others_can_read_is_refused(tmp_path, change, words):
    tokens = Tokens(str(tmp_path), SystemClock())
    tokens.create_first()
    text = (tmp_path / "admin.token").read_text().strip()
    assert tokens.actor_of(text).name == "token:admin"
    assert text not in (tmp_path / "tokens.json").read_text()
    change(tmp_path / "tokens.json")

    for ask in (lambda: tokens.actor_of(text), lambda: Tokens(str(tmp_path), SystemClock())):
        with pytest.raises(UnsafeError, match=words):
            ask()
    assert "tokens.json cannot be used" in tokens.trouble


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_fifo, "it is not a regular file"),
        (_link, "it is a symbolic link"),
        pytest.param(_given, "is nobody and its mode 0600; root must own it, .*: chown -h root /", marks=needs_root),
    ],
)
def test_s5_a_file_in_a_wrong_place_or_of_another_owner_lets_nobody_in_and_stops_no_job(tmp_path, change, words, caplog):
    Tokens(str(tmp_path), SystemClock()).create_first()
    change(tmp_path / "tokens.json")
    tokens = Tokens(str(tmp_path), SystemClock())

    assert tokens.create_first() is None
    with pytest.raises(UnsafeError, match=words):
        tokens.actor_of((tmp_path / "admin.token").read_text().strip())
    assert caplog.text.count("no token is accepted until this is corrected") == 1
    assert "tokens.json cannot be used" in tokens.trouble


@needs_root
def test_s5_what_root_moved_there_and_the_daemon_cannot_read_is_told_with_the_commands_that_mend_it(shared_folder):
    path = shared_folder / "tokens.json"
    path.write_text(written(GOOD))
    path.chmod(0o600)

    with as_nobody(), pytest.raises(ValueError, match="its owner is root and its mode 0600; nobody must own it") as told:
        read_tokens(str(path))
    subprocess.run(str(told.value).partition("may read it: ")[2], shell=True, check=True)
    with as_nobody():
        assert [each.token_id for each in read_tokens(str(path))] == ["grafana"]


def test_s5_a_file_that_is_removed_meanwhile_is_told_once_and_a_start_makes_a_new_one(tmp_path, caplog):
    tokens = Tokens(str(tmp_path), SystemClock())
    assert tokens.trouble is None
    tokens.create_first()
    (tmp_path / "tokens.json").unlink()

    assert [bool(tokens.trouble) for _ in range(3)] == [True] * 3
    assert tokens.create_first() is None
    assert caplog.text.count(f"{tmp_path}/tokens.json was removed: restore it, or restart") == 1
    assert Tokens(str(tmp_path), SystemClock()).create_first() is not None
    assert tokens.trouble is None


@pytest.mark.parametrize("text", [changed(scope=1), "", written(GOOD) + " " * 2_000_000])
def test_s5_a_mistake_at_the_start_lets_nobody_in_and_stays_as_it_was_written(tmp_path, caplog, text):
    path = tmp_path / "tokens.json"
    path.write_text(text)
    path.chmod(0o600)
    tokens = Tokens(str(tmp_path), SystemClock())

    assert tokens.create_first() is None
    assert path.read_text() == text
    with pytest.raises(UnsafeError):
        tokens.actor_of(TEXT)
    assert caplog.text.count("no token is accepted until this is corrected") == 1
    assert "tokens.json cannot be used" in tokens.trouble
    path.write_text(written(GOOD))
    assert tokens.trouble is None
    assert tokens.actor_of(TEXT).name == "token:grafana"


def test_s4_s5_a_mistake_lets_nobody_in_and_stops_no_job_but_a_file_of_others_ends_the_start_with_78(daemon):
    running = daemon({"j": {"shell": "true"}}, api={"listen": "127.0.0.1:0"})
    (running.folder / "state").mkdir(mode=0o700)
    path = running.folder / "state" / "tokens.json"
    write_private(str(path), changed(scope=["nothing"]))
    running.start()
    client = Client(url=re.search(r"listening on (http://\S+)", running.log())[1], token=TEXT)

    assert running.client.post("jobs/j/trigger").body["result"]["status"] == "success"
    answers = [client.ask("GET", f"{PREFIX}/jobs") for _ in range(FAILURES + 2)]  # none of them is a failed login
    assert {(answer.status, answer.body["detail"]) for answer in answers} == {
        (503, "tokens cannot be checked at present: see the daemon's log")
    }
    assert "scope" not in str([answer.body for answer in answers])
    assert running.log().count("tokens.json: token 1 (grafana): unknown key 'scope': known are") == 1
    assert any("tokens.json cannot be used" in each for each in running.client.get("health")["scheduler"]["troubles"])

    path.write_text(written(GOOD))
    assert client.ask("GET", f"{PREFIX}/jobs").status == 200
    path.write_text(changed(role="operater"))
    assert client.ask("GET", f"{PREFIX}/jobs").status == 503
    path.write_text(written(GOOD))
    assert client.ask("GET", f"{PREFIX}/jobs").status == 200
    path.write_text(written())  # taken out: it ends at once
    assert client.ask("GET", f"{PREFIX}/jobs").status == 401
    assert running.log().count("api: failed login from 127.0.0.1: unknown token") == 1
    with pytest.raises(ClientError, match=r"^a token is needed: .* \(schedulerctl reads it from \$SCHEDULERD_TOKEN\)$"):
        Client(url=re.search(r"listening on (http://\S+)", running.log())[1]).get("jobs")
    path.chmod(0o644)
    running.stop()
    running.spawn()
    assert running.wait() == 78
    assert f"chmod 600 {path}" in running.log()
    kept = [each for each in (running.folder / "state").rglob("*") if each.is_file()]
    assert [each.name for each in kept if TEXT.encode() in each.read_bytes()] == []
    assert TEXT not in running.log()
