"""When an account ends is read from shadow(5), and holds nobody up."""

import pwd
from datetime import UTC, datetime

import pytest

from schedulerd.host import accounts

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def test_a_user_with_an_entry_larger_than_the_buffer_is_found(monkeypatch):
    monkeypatch.setattr(accounts, "FIRST_SIZE", 1)

    assert accounts.expired_on(pwd.getpwuid(0), NOW) is None


@pytest.mark.root("asks as root, who may look")
def test_a_user_without_an_entry_never_expires():
    nobody = pwd.struct_passwd(("no-such-user-here", "x", 65000, 65000, "", "/", "/bin/false"))

    assert accounts.expired_on(nobody, NOW) is None
