"""Single runs on a real daemon: how they are, what they write, live, and their end on demand."""

import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest

from schedulerd.cli.client import PREFIX, ClientError, job_path, run_path
from schedulerd.cli.runs import exit_code
from schedulerd.service.outputs import MOST_FOLLOWERS
from schedulerd.service.progress import seconds_left
from tests.process.test_output import punch
from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

WAITS = 'echo begin; read line < "$FIFO"; echo "got $line"'
TOKEN = "a token of a file"
JOBS = {
    "binary": {"command": [sys.executable, "-c", "import os; os.write(1, bytes(range(256)) * 4)"]},
    "digits": {"shell": "printf 0123456789"},
    "quiet": {"shell": "true"},
    "secret": {"shell": 'printf "a $WORD b"', "env": {"WORD": {"env": "THE_WORD"}}},
    "from_file": {"shell": 'echo "$TOKEN $SHORT $DB"; exit 3', "env_file": "variables"},
    "three": {"shell": "echo one; echo two; exit 3"},
    "erases": {"shell": 'echo "begin of much"; read line < "$FIFO"; sleep 0.5; echo anew > /dev/stderr; echo "got $line"'},
    "killed": {"shell": "kill -9 $$"},
    "late": {"shell": "exec sleep 60", "timeout": "0.2s"},
    "steers": {"shell": "printf '\\033[31mred\\033]0;title\\007'; exit 4"},
    "second": {
        "shell": "test -e second_mark && echo then && exit 0; echo first; touch second_mark; exit 7",
        "retries": 1,
        "retry_delay": 0,
    },
    "tries": {"shell": "exit 5", "retries": 1, "retry_delay": "1h"},
    "stubborn": {"shell": "exec sleep 60"},
    "progress": {"shell": WAITS},
    **{name: {"shell": WAITS, "overlap": "queue"} for name in ("live", "queued", "many", "ctl", "logs")},
}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    jobs = {name: {**job, "env": {"FIFO": str(folder / name), **job.get("env", {})}} for name, job in JOBS.items()}
    for name in JOBS:
        os.mkfifo(folder / name)
    jobs["second"]["cwd"] = str(folder)
    (folder / "variables").write_text(f"TOKEN={TOKEN}\nSHORT=1234567\nDB=redis://:pass@h\n")
    made = RunningDaemon(folder, {"jobs": jobs, "shutdown_grace": "1s"}, {"THE_WORD": "hunter2"})
    made.start()
    yield made
    made.close()


@pytest.fixture
def client(running):
    return running.client


def let_go(running, name, word="on"):
    """Let a job that waits go on."""
    with open(running.folder / name, "w") as fifo:
        fifo.write(word + "\n")


def started(client, name):
    """Trigger a job, and return its run's id."""
    return client.post(job_path(name, "trigger"), wait="false").body["run_id"]


def ran(client, name):
    return client.post(job_path(name, "trigger")).body["run_id"]


def read(client, run_id, headers=None, **query):
    """Return the status, headers and bytes of an output."""
    with client.stream(f"{PREFIX}/{run_path(run_id, 'output')}", headers, **query) as answer:
        return answer.status, answer.headers, b"".join(answer.pieces)


@contextmanager
def following(client, run_id, **query):
    with client.stream(f"{PREFIX}/{run_path(run_id, 'output')}", follow="true", **query) as answer:
        yield answer


def until_written(client, run_id, size):
    until(lambda: client.get(run_path(run_id))["output_bytes"] >= size, f"{size} bytes of output")


# How a run is


def test_a_run_that_ended_is_shown_with_its_output_size(client):
    run = client.get(run_path(ran(client, "digits")))

    assert (run["job_id"], run["status"], run["output_bytes"], run["output_dropped_bytes"]) == ("digits", "success", 10, 0)
    assert (run["progress"], run["eta_seconds"], run["running_seconds"]) == (None, None, None)


def test_a_run_says_how_far_it_is(client, running):
    run_id = started(client, "progress")
    until_written(client, run_id, 6)
    first = client.get(run_path(run_id))
    (log,) = running.folder.glob(f"state/output/*/{run_id}.log")
    log.with_suffix(".result").write_text('{"progress": 0.5}')
    second = client.get(run_path(run_id))
    (listed,) = [run for run in client.get("running") if run["run_id"] == run_id]
    let_go(running, "progress")
    until(lambda: client.get(run_path(run_id))["status"] == "success", "the end")
    third_id = started(client, "progress")
    until_written(client, third_id, 6)
    third = client.get(run_path(third_id))
    let_go(running, "progress")

    assert (first["status"], first["progress"], first["eta_seconds"]) == ("running", None, None)
    assert (second["progress"], listed["progress"]) == (0.5, 0.5)
    assert second["eta_seconds"] == pytest.approx(second["running_seconds"], abs=0.01)
    assert third["eta_seconds"] is not None


@pytest.mark.parametrize(
    ("elapsed", "progress", "expected", "left"),
    [(30, 0.25, 10, 90), (30, 1, None, 0), (30, 0, 40, 10), (30, None, 20, 0), (30, None, None, None), (30, 0, None, None)],
)
def test_the_time_left_is_the_runs_word_before_the_past(elapsed, progress, expected, left):
    assert seconds_left(elapsed, progress, expected) == left


def test_the_runs_of_all_jobs_are_listed_newest_first(client):
    ids = [ran(client, "quiet"), ran(client, "three")]
    newest = client.get("runs", limit=2)

    assert [run["run_id"] for run in newest] == ids[::-1]
    assert client.get("runs", limit=1, before=ids[1])[0]["run_id"] == ids[0]
    assert client.get("runs", limit=1, job="quiet")[0]["run_id"] == ids[0]
    assert {run["status"] for run in client.get("runs", status="failed")} == {"failed"}
    assert client.get("runs", job="none") == []
    assert client.ask("GET", f"{PREFIX}/runs", status="odd").status == 422


@pytest.mark.parametrize(
    "run_id",
    [
        "none", "..%2f..%2fetc%2fpasswd", "0" * 36, "00000000-0000-7000-8000-00000000000g", "%00", "-" * 36,
        "ffffffff-ffff-ffff-ffff-ffffffffffff", "٣٣٣٣٣٣٣٣-0000-7000-8000-000000000000", "a" * 3000,
    ],
)  # fmt: skip
@pytest.mark.parametrize(("method", "verb"), [("GET", ""), ("GET", "/output"), ("POST", "/cancel")])
def test_what_is_no_run_is_404(client, method, verb, run_id):
    quoted = run_id.encode().decode("latin-1") if not run_id.isascii() else run_id
    path = f"{PREFIX}/runs/{quoted if run_id.isascii() else '%D9%A3' * 8 + '-0000-7000-8000-000000000000'}{verb}"

    assert client.ask(method, path).status == 404


# Output


def test_output_comes_byte_for_byte(client):
    run_id = ran(client, "binary")
    status, headers, data = read(client, run_id)

    assert (status, data) == (200, bytes(range(256)) * 4)
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert (headers["x-output-size"], headers["x-output-offset"]) == ("1024", "0")
    assert (headers["x-output-next-offset"], headers["x-output-dropped"]) == ("1024", "0")
    assert read(client, run_id, text="true")[1]["content-type"] == "text/plain; charset=utf-8"


def test_a_run_without_output_has_none(client):
    run_id = ran(client, "quiet")

    assert read(client, run_id)[2] == read(client, run_id, follow="true")[2] == b""


@pytest.fixture(scope="module")
def digits(running):
    return ran(running.client, "digits")


@pytest.mark.parametrize(
    ("query", "data"),
    [({"offset": 3}, b"3456789"), ({"offset": 3, "limit": 2}, b"34"), ({"offset": 10}, b""), ({"offset": 999}, b"")],
)
def test_a_part_is_named_by_offset_and_limit(client, digits, query, data):
    status, headers, found = read(client, digits, **query)

    assert (status, found) == (200, data)
    assert int(headers["x-output-next-offset"]) == query["offset"] + len(data)


@pytest.mark.parametrize(
    ("text", "data", "place"),
    [
        ("bytes=0-0", b"0", "0-0"), ("bytes=8-", b"89", "8-9"), ("bytes=-3", b"789", "7-9"),
        ("bytes=-99", b"0123456789", "0-9"),
        ("bytes=4-99999999999", b"456789", "4-9"), ("BYTES=2-3", b"23", "2-3"),
    ],
)  # fmt: skip
def test_a_range_is_206(client, digits, text, data, place):
    status, headers, found = read(client, digits, {"Range": text})

    assert (status, found, headers["content-range"]) == (206, data, f"bytes {place}/10")


@pytest.mark.parametrize(
    "text",
    [
        "bytes=10-", "bytes=5-4", "bytes=-0", "bytes=-", "bytes=a-b", "bytes=", "bytes=0-1,3-4", "bytes=+1-2", "bytes=1--2",
        "bytes=\u0663-4".encode(), "bytes=9999999999999999999-", "bytes=0x1-2",
    ],
)  # fmt: skip
def test_a_range_that_is_not_there_is_416(client, digits, text):
    answer = client.ask("GET", f"{PREFIX}/{run_path(digits, 'output')}", headers={"Range": text})

    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("offset", "-1"), ("offset", "x"), ("offset", "\u0663"), ("offset", "9" * 30), ("limit", "0"), ("limit", "10485761"),
        ("follow", "yes"), ("marks", "1"), ("text", ""),
    ],
)  # fmt: skip
def test_a_bad_query_is_422(client, digits, name, value):
    answer = client.ask("GET", f"{PREFIX}/{run_path(digits, 'output')}", **{name: value})

    assert (answer.status, answer.body["detail"][0]["loc"]) == (422, ["query", name])


def test_a_range_of_other_units_is_not_looked_at(client, digits):
    assert read(client, digits, {"Range": "lines=1-2"})[2] == b"0123456789"


def test_secrets_are_not_shown_however_they_are_asked_for(client):
    run_id = ran(client, "secret")

    assert read(client, run_id)[2] == b"a ******* b"
    assert read(client, run_id, follow="true")[2] == b"a ******* b"
    assert b"".join(read(client, run_id, offset=at, limit=1)[2] for at in range(11)) == b"a ******* b"


def test_values_of_files_of_variables_are_masked_in_output_and_messages(client):
    run_id = ran(client, "from_file")

    assert read(client, run_id)[2] == f"{'*' * len(TOKEN)} 1234567 {'*' * len('redis://:pass@h')}\n".encode()
    assert client.get(run_path(run_id))["error_message"] == "exit status 3; last output: *** 1234567 ***"


def test_what_was_dropped_is_told_and_the_rest_is_in_its_place(client, running):
    run_id = ran(client, "digits")
    (log,) = running.folder.glob(f"state/output/*/{run_id}.log")
    log.write_bytes(b"h" * 4096 + b"x" * 8192 + b"t" * 100)
    punch(log, 4096, 8192)
    shown = client.get(run_path(run_id))
    _status, first, head = read(client, run_id)
    _status, second, tail = read(client, run_id, offset=first["x-output-next-offset"])
    marked = read(client, run_id, follow="true", marks="true")[2]
    inside = read(client, run_id, {"Range": "bytes=5000-12300"})

    assert (shown["output_bytes"], shown["output_dropped_bytes"]) == (12388, 8192)
    assert (head, tail) == (b"h" * 4096, b"t" * 100)
    assert (second["x-output-offset"], second["x-output-dropped"]) == ("12288", "8192")
    assert read(client, run_id, follow="true")[2] == head
    assert read(client, run_id, follow="true", offset=4096)[2] == tail
    assert marked == head + b"\n[schedulerd: 8192 bytes dropped]\n" + tail
    assert (inside[0], inside[1]["content-range"], inside[2]) == (206, "bytes 12288-12300/12388", b"t" * 13)
    assert client.ask("GET", f"{PREFIX}/{run_path(run_id, 'output')}", headers={"Range": "bytes=4096-9000"}).status == 416


# Live


def test_output_is_followed_live_and_again_from_where_one_was(client, running):
    run_id = started(client, "live")
    with following(client, run_id) as answer:
        first = next(answer.pieces)
        with following(client, run_id, offset=3) as other:
            rest_of_first = next(other.pieces)
            let_go(running, "live", "word")
            rest, other_rest = b"".join(answer.pieces), b"".join(other.pieces)

    assert (first + rest, rest_of_first + other_rest) == (b"begin\ngot word\n", b"in\ngot word\n")


def test_a_run_that_waits_is_followed_from_its_beginning(client, running):
    first, second = started(client, "queued"), started(client, "queued")
    with following(client, second) as answer:
        assert client.get(run_path(second))["status"] == "queued"
        let_go(running, "queued", "1")
        until(lambda: client.get(run_path(second))["status"] == "running", "its turn")
        let_go(running, "queued", "2")
        assert b"".join(answer.pieces) == b"begin\ngot 2\n"
    assert client.get(run_path(first))["status"] == "success"


def test_more_followers_than_there_is_room_for_are_told_to_come_again(client, running):
    run_id = started(client, "many")
    followers = []
    with ExitStack() as stack:
        until(lambda: follows(client, run_id, stack, followers), "room for all of them")
        answer = client.ask("GET", f"{PREFIX}/{run_path(run_id, 'output')}", follow="true")
        assert (answer.status, answer.headers["retry-after"]) == (429, "10")
        assert client.get(run_path(run_id))["status"] == "running"
    again = []
    with ExitStack() as stack:
        until(lambda: follows(client, run_id, stack, again), "room for as many when those have gone")
        let_go(running, "many")
        assert {b"".join(each.pieces) for each in again} == {b"begin\ngot on\n"}


def follows(client, run_id, stack, followers):
    """Follow once more, and return whether there are as many now as may be; those of other tests may still be going."""
    with suppress(ClientError):
        followers.append(stack.enter_context(following(client, run_id)))
    return len(followers) >= MOST_FOLLOWERS


def test_a_follower_who_reads_nothing_holds_nobody_up(client, running):
    run_id = started(client, "live")
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(running.socket_path))
        slow.sendall(f"GET {PREFIX}/{run_path(run_id, 'output')}?follow=true HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        let_go(running, "live")
        assert read(client, run_id, follow="true")[2] == b"begin\ngot on\n"


# Cancel


def test_a_run_that_waits_is_cancelled_at_once(client, running):
    first, second = started(client, "live"), started(client, "live")
    answer = client.post(run_path(second, "cancel"), {"reason": "not today"})
    with following(client, second) as followed:
        assert b"".join(followed.pieces) == b""
    let_go(running, "live")

    assert (answer.status, answer.body["success"], answer.body["status"]) == (200, True, "cancelled")
    assert (answer.body["run_id"], answer.body["job_id"]) == (second, "live")
    until(lambda: client.get(run_path(first))["status"] == "success", "the end of the other")


def test_a_run_that_runs_is_ended(client):
    run_id = started(client, "stubborn")
    until(lambda: client.get(run_path(run_id))["running_seconds"], "the start")
    until(lambda: any(run["run_id"] == run_id for run in client.get("running")), "the start")
    first = client.post(run_path(run_id, "cancel"), wait="20s")
    again = client.post(run_path(run_id, "cancel"))

    assert (first.status, first.body["success"], first.body["status"]) == (200, True, "cancelled")
    assert (again.status, again.body["success"], again.body["status"]) == (200, False, "cancelled")
    assert client.get(run_path(run_id))["status"] == "cancelled"


def test_without_waiting_the_order_is_answered(client, running):
    run_id = started(client, "progress")
    until_written(client, run_id, 6)
    answer = client.post(run_path(run_id, "cancel"))

    assert (answer.status, answer.body["success"], answer.body["status"]) == (202, True, "running")
    until(lambda: client.get(run_path(run_id))["status"] == "cancelled", "its end")


@pytest.mark.parametrize("body", [b'{"reason": 3}', b'{"why": "x"}', b"[]"])
def test_a_bad_body_cancels_nothing(client, digits, body):
    assert client.ask("POST", f"{PREFIX}/{run_path(digits, 'cancel')}", body).status == 422


# schedulerctl


@pytest.fixture
def ctl(running):
    """Start schedulerctl; what it says can be read."""
    made = []

    def call(*words):
        made.append(
            subprocess.Popen(
                [sys.executable, "-m", "schedulerd.cli", "--socket", str(running.socket_path), *words],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        return made[-1]

    yield call
    for each in made:
        each.kill()
        each.communicate()


def said(process):
    """Return the exit status, stdout and stderr."""
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err.decode()


def test_run_and_follow_hands_on_output_and_exit_code(ctl):
    code, out, err = said(ctl("run", "three", "--follow"))

    assert (code, out) == (3, b"one\ntwo\n")
    assert err.startswith("three: failed after")


def test_run_and_follow_goes_on_when_the_run_erases_its_output_and_says_so(ctl, client, running):
    process = ctl("run", "erases", "-f")
    assert process.stdout.readline() == b"begin of much\n"
    let_go(running, "erases", "")
    code, out, err = said(process)
    run_id = client.get("runs", job="erases")[0]["run_id"]

    assert (code, out) == (0, b"anew\ngot \n")
    assert "[schedulerd: the run has erased its output]" in err
    assert client.get(run_path(run_id))["details"]["output_erased"] is True


def test_run_and_follow_shows_output_while_it_comes_and_interrupted_leaves_the_run_alone(ctl, client, running):
    process = ctl("run", "ctl", "-f")
    assert process.stdout.readline() == b"begin\n"
    process.send_signal(2)
    code, out, err = said(process)
    run_id = client.get("runs", job="ctl")[0]["run_id"]
    let_go(running, "ctl")

    assert (code, out) == (130, b"")
    assert f"schedulerctl logs -f {run_id}" in err
    assert read(client, run_id, follow="true")[2] == b"begin\ngot on\n"


def test_on_a_terminal_a_line_tells_how_the_run_is(running, client):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "schedulerd.cli", "--socket", str(running.socket_path), "run", "ctl", "-f"],
        stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    try:
        shown = b""
        for _ in range(100):
            if b"ctl: running, for" in shown:
                break
            assert select.select([ours], [], [], 30)[0], shown
            shown += os.read(ours, 1000)
        let_go(running, "ctl")
        out = process.communicate(timeout=30)[0]
    finally:
        process.kill()
        os.close(ours)

    assert (process.returncode, out) == (0, b"begin\ngot on\n")


def test_parameters_are_sent_as_texts_and_judged_by_the_daemon(ctl):
    unknown, wrong = said(ctl("run", "quiet", "-p", "a=1", "-p", "b=x=y")), said(ctl("run", "quiet", "-p", "nothing"))

    assert (unknown[0], "body.params.a" in unknown[2]) == (1, True)
    assert (wrong[0], "expected NAME=VALUE" in wrong[2]) == (2, True)


def test_run_waits_as_long_as_it_is_told(ctl, client, running):
    first = said(ctl("run", "logs", "--no-wait"))
    first_id = client.get("runs", job="logs")[0]["run_id"]
    let_go(running, "logs")
    until(lambda: not client.get(job_path("logs"))["is_running"], "the end")
    code, out, err = said(ctl("run", "logs", "--wait", "0.1s"))
    run_id = client.get("runs", job="logs")[0]["run_id"]
    let_go(running, "logs")

    assert first[:2] == (0, f"logs: accepted, runs, as run {first_id}\n".encode())
    assert (code, out) == (75, b"")
    assert f"not ended within 100ms, the run continues. To follow it: schedulerctl logs -f {run_id}" in err
    assert said(ctl("run", "quiet", "--wait", "soon"))[0] == 2
    code, out, _err = said(ctl("run", "logs", "--wait", "0", "--json"))
    let_go(running, "logs")
    assert (code, json.loads(out)["status"]) == (75, "queued")
    assert said(ctl("run", "quiet", "--wait", "20s"))[1].startswith(b"quiet: succeeded")


def test_a_run_answers_when_it_has_ended_if_that_is_wanted(client, running):
    run_id = started(client, "live")
    early = client.get(run_path(run_id), wait="0.1s")["status"]
    let_go(running, "live")

    assert (early, client.get(run_path(run_id), wait="true")["status"]) == ("running", "success")
    assert client.get(run_path(run_id), wait="20s")["status"] == "success"
    assert client.ask("GET", f"{PREFIX}/{run_path(run_id)}", wait="soon").status == 422


@pytest.mark.parametrize("how", [[], ["--follow"]])
def test_run_goes_on_to_the_last_attempt_and_hands_on_its_code(ctl, client, running, how):
    code, out, err = said(ctl("run", "second", *how))
    last, first = client.get("runs", job="second", limit=2)
    (running.folder / "second_mark").unlink()

    assert (code, last["attempt"], first["exit_code"]) == (0, 2, 7)
    assert "second: failed after" in err
    assert f"next attempt at {first['details']['retry_at']}, as run {last['run_id']}" in err
    assert out == b"first\nthen\n" if how else out.startswith(b"second: succeeded after")


@pytest.mark.parametrize("how", [[], ["--follow"]])
def test_what_a_run_says_does_not_steer_the_terminal(ctl, how):
    code, out, err = said(ctl("run", "steers", *how))

    assert code == 4
    assert "steers: failed after" in (err if how else out.decode())
    assert "\x1b" not in (err if how else out.decode())


def test_run_has_json_of_the_shape_of_a_trigger(ctl):
    answer = json.loads(said(ctl("run", "three", "--json"))[1])

    assert (answer["success"], answer["job_id"], answer["status"]) == (False, "three", "failed")
    assert answer["message"].startswith("failed after")
    assert (answer["result"]["exit_code"], answer["result"]["run_id"]) == (3, answer["run_id"])


def test_a_cancel_that_is_too_late_names_the_attempt_that_follows(ctl, client, running):
    first = started(client, "tries")
    until(lambda: client.get(run_path(first))["status"] == "failed", "its end")
    second = client.get(run_path(first))["details"]["retry"]
    answer = client.post(run_path(first, "cancel"), wait="true").body

    assert (answer["success"], answer["run_id"], answer["status"]) == (False, first, "failed")
    assert answer["message"] == f"it is over already: failed; the attempt that follows it, run {second}: queued"
    assert said(ctl("cancel", second))[0] == 0
    code, out, _err = said(ctl("cancel", first))
    assert (code, out.decode()) == (
        1, f"{first}: it is over already: failed; the attempt that follows it, run {second}: cancelled\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("run", "code"),
    [
        ({"status": "success", "exit_code": 7}, 0), ({"status": "failed", "exit_code": 7}, 7),
        ({"status": "failed", "exit_code": -9}, 137), ({"status": "timed_out", "exit_code": -15}, 124),
        ({"status": "failed", "exit_code": None}, 1), ({"status": "cancelled", "exit_code": -15}, 143),
        ({"status": "abandoned"}, 1),
    ],
)  # fmt: skip
def test_the_exit_code_says_how_a_run_ended(run, code):
    assert exit_code(run) == code


@pytest.mark.parametrize(("job", "code"), [("killed", 137), ("late", 124)])
def test_signals_and_timeouts_have_exit_codes_as_in_a_shell(ctl, job, code):
    assert said(ctl("run", job, "-f"))[0] == code


def test_logs_shows_what_a_run_or_the_newest_run_of_a_job_wrote(ctl, client):
    run_id = ran(client, "three")

    assert said(ctl("logs", run_id)) == (0, b"one\ntwo\n", "")
    assert said(ctl("logs", "three", "--lines", "1"))[1] == b"two\n"
    assert said(ctl("logs", "none"))[::2] == (1, "schedulerctl: there is no job 'none'\n")


def test_the_last_lines_tell_once_of_what_was_dropped_between_them(ctl, client, running):
    run_id = ran(client, "digits")
    (log,) = running.folder.glob(f"state/output/*/{run_id}.log")
    log.write_bytes(b"head\n" * 1000 + b"\0" * 200_000 + b"tail\n" * 10)
    punch(log, 8192, 192_512)
    behind, over = said(ctl("logs", run_id, "-n", "5")), said(ctl("logs", run_id, "-n", "900"))

    assert behind == (0, b"tail\n" * 5, "")
    assert (over[1][:5], over[1][-50:]) == (b"head\n", b"tail\n" * 10)
    assert over[2].count("bytes dropped") == 1


def test_logs_follows_until_the_end(ctl, running, client):
    started(client, "logs")
    process = ctl("logs", "-f", "logs")
    assert process.stdout.readline() == b"begin\n"
    let_go(running, "logs")

    assert said(process) == (0, b"got on\n", "")


def test_interrupted_while_it_follows_logs_says_so_and_the_daemons_log_nothing(ctl, client, running):
    run_id = started(client, "logs")
    process = ctl("logs", "-f", "logs")
    assert process.stdout.readline() == b"begin\n"
    process.send_signal(2)
    code, out, err = said(process)
    let_go(running, "logs")
    client.get(run_path(run_id), wait="20s")

    assert (code, out, err) == (130, b"", "\nschedulerctl: interrupted; runs continue\n")
    assert "a bad request" not in running.log()


def test_what_waits_is_seen_in_the_tables(ctl, client, running):
    first, second = started(client, "queued"), started(client, "queued")
    until(lambda: client.get(run_path(first))["status"] == "running", "the start")
    listed, table = said(ctl("list"))[1].decode(), said(ctl("running"))[1].decode()
    for run_id in (first, second):
        let_go(running, "queued")
        client.get(run_path(run_id), wait="20s")

    assert "running, waiting (1)" in next(line for line in listed.splitlines() if line.startswith("queued"))
    assert table.splitlines()[-1] == f"queued: run {second} waits for the end of run {first} of its job"


def test_the_history_tells_attempts_apart(ctl, client):
    said(ctl("run", "tries", "--no-wait"))
    until(lambda: client.get(job_path("tries", "history"))[0]["status"] == "queued", "the second attempt")
    head, *rows = said(ctl("history", "tries"))[1].decode().splitlines()
    said(ctl("cancel", "tries", "--wait"))

    assert [row[head.index("ATTEMPT")] for row in rows[:2]] == ["2", "1"]


def test_cancel_and_show_take_a_run_or_a_job(ctl, client):
    run_id = started(client, "stubborn")
    until(lambda: any(run["run_id"] == run_id for run in client.get("running")), "the start")
    table = said(ctl("running"))[1].decode()
    code, out, _err = said(ctl("cancel", "stubborn", "--wait"))

    assert table.splitlines()[0].split() == ["JOB", "RUN", "ORIGIN", "STARTED", "SINCE", "PROGRESS", "ETA"]
    assert (code, out.decode()) == (0, f"{run_id}: cancelled\n")
    assert "output_bytes" in said(ctl("show", run_id))[1].decode()
    assert said(ctl("cancel", run_id))[0] == 1


def test_a_broken_connection_is_taken_up_where_it_broke(daemon, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    first = daemon({"job": {"shell": WAITS, "env": {"FIFO": str(tmp_path / "fifo")}}}, shutdown_grace="0s").start()
    run_id = started(first.client, "job")
    until_written(first.client, run_id, 6)
    process = subprocess.Popen(
        [sys.executable, "-m", "schedulerd.cli", "--socket", str(first.socket_path), "logs", "-f", run_id],
        stdout=subprocess.PIPE,
    )
    try:
        line = process.stdout.readline()
        first.stop()
        first.start()
        rest = process.communicate(timeout=30)[0]
    finally:
        process.kill()
        process.wait()

    assert (line, rest, process.returncode) == (b"begin\n", b"", 0)


def test_the_log_has_no_traceback(running):
    assert threading.active_count() < 50
    assert "Traceback" not in running.log()
