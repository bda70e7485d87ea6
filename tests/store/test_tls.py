"""A history in a PostgreSQL that is reached over TLS: who is trusted, and what is said when it isn't."""

from itertools import count

import psycopg
import pytest

from schedulerd.core.errors import StoreAwayError, StoreError
from schedulerd.core.models import Secret
from schedulerd.store.postgres.store import PostgresStore
from tests.support.builders import a_run

SCHEMAS = count()


@pytest.fixture
def schema():
    return f"tls_{next(SCHEMAS)}"


def refused(url):
    """Return what is said of a history that cannot be reached."""
    with pytest.raises(StoreAwayError) as caught:
        PostgresStore(url, "refused")
    return str(caught.value)


def verified(server, authority, **more):
    return server.tls_url("sslmode=verify-full", f"sslrootcert={authority.certificate}", **more)


def tls_of(server, schema):
    """Return for each connection of a history whether it is encrypted, and whose certificate was shown."""
    asked = (
        "SELECT ssl, client_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
        " WHERE application_name = 'schedulerd/' || %s"
    )
    with psycopg.connect(server.url) as connection:
        return set(connection.execute(asked, [schema]).fetchall())


def test_rows_go_over_connections_that_are_encrypted_and_verified(tls_postgres, authority, schema):
    store = PostgresStore(verified(tls_postgres, authority), schema)
    run = a_run()
    store.record([run]).result(20)

    assert store.run(run.run_id) == run
    assert tls_of(tls_postgres, schema) == {(True, None)}
    store.close()


def test_a_url_with_its_password_in_a_secret_file_is_used(tls_postgres, authority, tmp_path, schema):
    (tmp_path / "url").write_text(verified(tls_postgres, authority) + "\n")
    store = PostgresStore(Secret("file", str(tmp_path / "url")), schema)

    assert tls_of(tls_postgres, schema) == {(True, None)}
    store.close()


def test_a_client_certificate_stands_for_a_password(tls_postgres, authority, schema):
    own = authority.sign("certified")
    options = ("sslmode=verify-full", f"sslrootcert={authority.certificate}", f"sslcert={own.path}", f"sslkey={own.key}")
    store = PostgresStore(tls_postgres.tls_url(*options, user="certified"), schema)

    assert tls_of(tls_postgres, schema) == {(True, "/CN=certified")}
    store.close()


def test_a_client_without_its_certificate_is_refused(tls_postgres, authority):
    assert "connection requires a valid client certificate" in refused(verified(tls_postgres, authority, user="certified"))


def test_a_server_that_somebody_else_has_signed_is_not_spoken_to(tls_postgres, stranger):
    said = refused(verified(tls_postgres, stranger))

    assert "certificate verify failed" in said
    assert "s3cret-pass" not in said


def test_a_server_that_has_another_name_is_not_spoken_to(tls_postgres, authority):
    said = refused(verified(tls_postgres, authority, host="127.0.0.1"))

    assert 'server certificate for "localhost"' in said
    assert 'does not match host name "127.0.0.1"' in said
    assert "s3cret-pass" not in said


def test_a_file_that_is_not_there_is_named(tls_postgres, tmp_path):
    missing = tmp_path / "none.pem"

    assert str(missing) in refused(tls_postgres.tls_url("sslmode=verify-full", f"sslrootcert={missing}"))


def test_a_server_that_demands_tls_refuses_who_does_without(tls_postgres):
    said = refused(tls_postgres.tls_url("sslmode=disable"))

    assert "no encryption" in said
    assert "s3cret-pass" not in said


def test_a_mode_that_there_is_not_is_a_mistake_and_no_outage(tls_postgres):
    with pytest.raises(StoreError, match="sslmode=verfy-full: expected one of disable, ") as caught:
        PostgresStore(tls_postgres.tls_url("sslmode=verfy-full"), "refused")

    assert not isinstance(caught.value, StoreAwayError)
