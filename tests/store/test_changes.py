"""Changes of the ledger as they are written down, to be made later."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulerd.core.models import Origin, Run, Status, new_run_id
from schedulerd.store.changes import ClaimRun, FinishRuns, RecordRuns, from_json, to_json
from tests.support.builders import a_run

INSTANTS = st.datetimes(datetime(1980, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
PLAIN = st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(), st.lists, max_leaves=5)
RUNS = st.builds(
    Run,
    run_id=INSTANTS.map(new_run_id),
    job_id=st.text(min_size=1),
    origin=st.sampled_from(Origin),
    status=st.sampled_from(Status),
    queued_at=INSTANTS,
    scheduled_at=st.none() | INSTANTS,
    attempt=st.integers(1, 99),
    started_at=st.none() | INSTANTS,
    finished_at=st.none() | INSTANTS,
    duration_seconds=st.none() | st.floats(0, 1e9),
    exit_code=st.none() | st.integers(-64, 255),
    records_processed=st.integers(0, 2**63 - 1),
    error_message=st.none() | st.text(),
    details=st.dictionaries(st.text(), PLAIN),
    node=st.text(),
    actor=st.none() | st.text(),
    idempotency_key=st.none() | st.text(),
)
CHANGES = (
    st.builds(RecordRuns, st.lists(RUNS, max_size=3))
    | st.builds(ClaimRun, st.text())
    | st.builds(FinishRuns, st.lists(RUNS, max_size=3), st.lists(RUNS, max_size=3))
)


def test_runs_keep_their_place_in_the_order_of_recording_and_older_journals_know_none():
    run = replace(a_run(), sequence=7)
    text = to_json(RecordRuns([run]))
    assert from_json(text).runs[0].position == (7, run.run_id)
    del text["record"][0]["sequence"]

    assert from_json(text).runs[0].position == (0, run.run_id)


@pytest.mark.slow
@given(CHANGES)
def test_what_is_written_down_is_read_back_as_it_was(change):
    assert from_json(json.loads(json.dumps(to_json(change)))) == change


@pytest.mark.parametrize("text", ["{}", '{"record": [{}]}', '{"finish": []}'])
def test_what_is_no_change_is_refused(text):
    with pytest.raises((KeyError, ValueError)):
        from_json(json.loads(text))
