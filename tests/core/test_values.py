"""Small things: run ids, figures, secrets, log lines, tokens."""

import json
import logging
import os
import pwd
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.api.auth import FAILURES, MOST_FAILURES, LoginThrottle
from schedulerd.api.peer_roles import PeerRoles
from schedulerd.api.responses import TooManyFailuresError
from schedulerd.api.tokens import Tokens
from schedulerd.config.config import Peer
from schedulerd.core.errors import SecretError, UnauthenticatedError, UnsafeError
from schedulerd.core.models import Role, Secret, from_micros, new_run_id, to_micros, to_text
from schedulerd.core.stats import percentile
from schedulerd.logs import _OneLine
from schedulerd.secrets.references import resolve
from schedulerd.secrets.urls import mask_url, mask_userinfo
from tests.support.builders import NOON
from tests.support.manual_clock import ManualClock

INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))


@given(INSTANTS, st.integers(1000, 10**12))
def test_run_ids_sort_by_time(instant, micros):
    assert new_run_id(instant) < new_run_id(instant + timedelta(microseconds=micros))


@given(INSTANTS)
def test_instants_survive_the_database(instant):
    assert from_micros(to_micros(instant)) == instant


def test_an_instant_is_shown_in_utc_with_z():
    assert to_text(NOON) == "2026-03-10T12:00:00Z"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(1, 100))
def test_a_percentile_is_a_sample_with_that_share_not_above_it(samples, percent):
    found = percentile(samples, percent)

    assert found in samples
    assert sum(sample <= found for sample in samples) * 100 >= percent * len(samples)


def test_no_samples_have_no_percentile():
    assert percentile([], 50) is None


def test_secrets_are_read_where_they_are_kept(tmp_path, monkeypatch):
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("KEY", "from env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    assert resolve("plain") == "plain"
    assert resolve(Secret("env", "KEY")) == "from env"
    assert resolve(Secret("file", str(tmp_path / "key"))) == "s3cret"
    assert resolve(Secret("credential", "key")) == "s3cret"


@pytest.mark.parametrize("secret", [Secret("env", "NOPE"), Secret("file", "/no/such"), Secret("credential", "../x")])
def test_the_error_of_an_unresolvable_secret_names_the_reference(secret):
    with pytest.raises(SecretError, match=secret.name):
        resolve(secret)


def test_passwords_in_urls_are_masked():
    assert mask_userinfo("cannot reach postgresql://u:p@h/db") == "cannot reach postgresql://***@h/db"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("Port could not be cast to integer value as 'CANARYs3cret'", "redis://:CANARYs3cret#x@host"),
        ("invalid: CANARY", "postgresql://u:pw/CANARY@h/db"),
        ("auth failed for CANARY", "redis://CANARY"),
        ("auth failed for CANARY", "redis://h?password=CANARY&ssl_ca_certs=/ca"),
        ("auth failed for CANARY", "redis://pw?CANARY"),
        ("no such page: /CANARY", "http://127.0.0.1:80/CANARY?hook=1"),
        ("auth failed for CANARY", "redis://127.0.0.1:6379/0?password=CANARY"),
        ("auth failed for CANARY", "redis://CANARY:12#34"),
        ("auth failed for 271828", "redis://admin:271828"),
    ],
)
def test_parts_of_a_url_that_a_driver_quotes_are_masked(text, url):
    assert "CANARY" not in mask_url(text, url)


@pytest.mark.parametrize("place", ["127.0.0.1:6390", "db-1.example:6390", "[2001:db8::1]:6390"])
@pytest.mark.parametrize("more", ["", "/0", "?ssl_ca_certs=/ca"])
def test_the_host_and_port_of_a_url_without_a_user_are_shown(place, more):
    error = f"Error 111 connecting to {place}. Connection refused."

    assert mask_url(error, f"redis://{place}{more}") == error


def test_a_file_named_by_a_url_is_shown():
    assert mask_url("/etc/ca.pem is not there", "rediss://h:7?ssl_ca_certs=/etc/ca.pem") == "/etc/ca.pem is not there"


def test_a_log_record_is_one_line_whatever_a_job_printed():
    record = logging.LogRecord("x", logging.ERROR, "", 0, "%s", ("a\nb\x1b[31m\r\u2028c",), None)

    assert _OneLine(in_journal=True).format(record) == "<3>a\\nb\\x1b[31m\\x0d\\u2028c"


@pytest.fixture
def clock():
    return ManualClock(NOON)


def test_the_first_token_is_an_admins_and_only_its_hash_is_kept(tmp_path, clock):
    path = Tokens(str(tmp_path), clock).create_first()
    text = (tmp_path / "admin.token").read_text().strip()
    tokens = Tokens(str(tmp_path), clock)

    assert path == str(tmp_path / "admin.token")
    assert tokens.actor_of(text).role is Role.ADMIN
    assert text not in (tmp_path / "tokens.json").read_text()
    assert {oct(each.stat().st_mode & 0o777) for each in tmp_path.iterdir()} == {"0o600"}
    assert tokens.create_first() is None


@pytest.mark.parametrize("text", ["", "x", "tök", "\udcff", "schedulerd_" + "a" * 43])
def test_other_texts_are_no_tokens(tmp_path, clock, text):
    tokens = Tokens(str(tmp_path), clock)
    tokens.create_first()

    with pytest.raises(UnauthenticatedError):
        tokens.actor_of(text)


def test_a_token_ends_when_it_expires_or_is_taken_out(tmp_path, clock):
    tokens = Tokens(str(tmp_path), clock)
    tokens.create_first()
    text = (tmp_path / "admin.token").read_text().strip()
    kept = json.loads((tmp_path / "tokens.json").read_text())
    kept["tokens"][0]["expires_at"] = to_text(NOON + timedelta(hours=1))
    (tmp_path / "tokens.json").write_text(json.dumps(kept))

    assert tokens.actor_of(text).name == "token:admin"
    clock.advance(3600)
    with pytest.raises(UnauthenticatedError, match="expired"):
        tokens.actor_of(text)
    (tmp_path / "tokens.json").write_text('{"tokens": []}')
    with pytest.raises(UnauthenticatedError, match="unknown token"):
        tokens.actor_of(text)


def test_a_token_file_that_others_can_read_is_refused(tmp_path, clock):
    Tokens(str(tmp_path), clock).create_first()
    os.chmod(tmp_path / "tokens.json", 0o644)

    with pytest.raises(UnsafeError, match="chmod 600"):
        Tokens(str(tmp_path), clock)


def test_a_peer_has_their_own_role_or_the_highest_of_their_groups(clock):
    peers = PeerRoles(
        "no-such-group", [Peer("viewer", user="12345"), Peer("viewer", group="65534"), Peer("admin", group="65534")], clock
    )

    assert peers.actor_of(os.geteuid(), os.getegid()).role is Role.ADMIN
    assert peers.actor_of(12345, 65534).role is Role.VIEWER  # what is said of the user decides
    assert peers.actor_of(65534, 65534).role is Role.ADMIN
    with pytest.raises(UnauthenticatedError, match=r"^uid 54321 has no role: see api\.peers$"):
        peers.actor_of(54321, 54321)


def test_a_user_without_a_role_is_named_with_the_remedy(clock):
    who = next(each for each in pwd.getpwall() if each.pw_uid not in (0, os.geteuid()))
    words = rf"^{who.pw_name} \(uid {who.pw_uid}\) has no role: as root, run adduser {who.pw_name} no-such-group, or see"

    for _ in range(2):
        with pytest.raises(UnauthenticatedError, match=words):
            PeerRoles("no-such-group", (), clock).actor_of(who.pw_uid, who.pw_gid)


def test_s6_guessing_is_throttled_for_a_minute(clock):
    throttle = LoginThrottle(clock)
    for _ in range(FAILURES):
        throttle.on_failure("10.0.0.1")

    with pytest.raises(TooManyFailuresError, match="this address"):
        throttle.on_failure("10.0.0.1")
    throttle.on_failure("10.0.0.2")
    clock.advance(61)
    throttle.on_failure("10.0.0.1")


def test_s6_guessing_from_many_addresses_is_throttled_too(clock):
    throttle = LoginThrottle(clock)
    for number in range(MOST_FAILURES):
        throttle.on_failure(f"10.0.0.{number}")

    with pytest.raises(TooManyFailuresError, match="all addresses"):
        throttle.on_failure("10.0.1.1")
    clock.advance(61)
    throttle.on_failure("10.0.1.1")
