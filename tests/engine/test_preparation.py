"""A run that cannot be prepared in time is given up once, and no second thread hangs for the same job."""

import pytest

from schedulerd.core.errors import StartError
from schedulerd.engine.preparation import PREPARE_SECONDS, Preparations
from tests.support.builders import NOON, a_job, a_run
from tests.support.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def preparing(clock):
    return Preparations(clock)


def test_what_is_prepared_in_time_is_not_given_up(preparing, clock):
    job, run = a_job().job_id, a_run().run_id
    preparing.begin(job, run)
    clock.advance(PREPARE_SECONDS - 0.1)

    assert preparing.give_up() == []
    assert preparing.end(job, run)


def test_what_takes_too_long_is_given_up_once_and_its_job_with_it_until_it_returns(preparing, clock):
    job, run, other = "job", a_run().run_id, "other"
    preparing.begin(job, run)
    clock.advance(PREPARE_SECONDS)

    assert preparing.give_up() == [run]
    assert preparing.give_up() == []
    with pytest.raises(StartError, match=f"the preparation of run {run} of this job still hangs"):
        preparing.begin(job, a_run().run_id)
    preparing.begin(other, a_run().run_id)
    assert not preparing.end(job, run)
    preparing.begin(job, a_run().run_id)
