"""S22: a value that an operator gives reaches the program as it is or is refused, and no pattern stops the daemon."""

import pytest

from schedulerd.cli.client import ClientError

JOB = {"params": {"who": {"pattern": "([a-z]+)+"}}, "shell": "true"}


def test_a_pattern_that_freezes_re_refuses_and_takes_as_any_other(daemon):
    running = daemon({"greet": JOB}).start()

    with pytest.raises(ClientError, match=r"a text that matches \(\[a-z\]\+\)\+") as error:
        running.client.post("jobs/greet/trigger", {"params": {"who": "a" * 900 + "1"}})
    assert error.value.status == 422
    assert running.client.post("jobs/greet/trigger", {"params": {"who": "a" * 900}}).body["status"] == "success"
