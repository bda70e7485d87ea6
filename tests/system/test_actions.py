"""The actions python, http and sql, parameters and results: one real daemon, real servers, real child processes."""

import json
import os
import shutil
import sqlite3
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.daemon import RunningDaemon
from tests.support.waiting import until

PASSWORD = "hunter2-very-secret"
FUNCTIONS = """
import os, sys, time

def count():
    print("counting")
    return 7

def mapping():
    return {"records_processed": 3, "message": "three", "details": {"a": [1, 2]}}

def nothing(): pass
def a_list(): return [1]
def flag(): return True
def negative(): return -1
def unjsonable(): return {"message": object()}
def fails(): raise ValueError("no such customer: \\udc80")
def leaves(): sys.exit(4)
def sleeps(): time.sleep(600)

def given(*args, **kwargs):
    return {"details": {"args": list(args), "kwargs": kwargs}}

async def later(): return 5

def reads():
    return {"details": {"input": sys.stdin.read(), "path": sys.path, "argv": sys.argv}}
"""


class Handler(BaseHTTPRequestHandler):
    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, text = 200, b'{"status": "ok", "queue": {"length": 3, "names": ["a"]}, "extra": true}'
        if self.path == "/error":
            status, text = 503, b"out of order"
        if self.path == "/here":
            status = 302
        if self.path == "/away":
            status = 302
        if self.path == "/echo":
            text = json.dumps({"method": self.command, "headers": dict(self.headers), "body": body.decode()}).encode()
        if self.path == "/big":
            text = b"x" * 3_000_000
        if self.path == "/never":
            self.server.released.wait(60)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/echo" if self.path == "/here" else "http://example.invalid/")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


def serving(server: ThreadingHTTPServer) -> str:
    server.daemon_threads = True
    server.released = threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return f"localhost:{server.server_address[1]}"


@pytest.fixture(scope="module")
def http():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    yield serving(server)
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("actions")


@pytest.fixture(scope="module")
def https(folder):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "tls.key", "-out", folder / "tls.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # who does not trust the certificate hangs up
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    yield serving(server)
    server.shutdown()
    server.server_close()


def python(name: str, **more) -> dict:
    return {"python": f"functions:{name}", **more}


@pytest.fixture(scope="module")
def jobs(http, https, postgres, folder):
    (folder / "lib").mkdir()
    (folder / "lib" / "functions.py").write_text(FUNCTIONS)
    (folder / "lib" / "python").write_text(f'#!/bin/sh\necho mine\nexec {sys.executable} "$@"\n')
    (folder / "lib" / "python").chmod(0o755)
    os.mkfifo(folder / "pipe")
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "variables").write_text("# comment\nFROM_FILE='a b'\nexport BOTH=file\n\nEMPTY=\n")
    (folder / "script.sql").write_text(
        "CREATE TABLE s (x TEXT DEFAULT 'a;b'); -- one; two\nINSERT INTO s VALUES (1);\nINSERT INTO s VALUES (2)"
    )
    (folder / "broken.sql").write_text("INSERT INTO t VALUES ('x', 1); INSERT INTO nowhere VALUES (1);")
    with sqlite3.connect(folder / "data.db") as database:
        database.execute("CREATE TABLE t (name TEXT, n INTEGER)")
    database.close()
    secret = {"file": "password"}
    word = {"params": {"word": {"type": "text"}}}
    loose = {"params": {"word": {"type": "text", "multiline": True, "pattern": "(?s).*"}}}
    pg = f"postgresql://postgres:{PASSWORD}@/postgres?host={postgres.folder}"
    (folder / "pg.url").write_text(pg)
    (folder / "data.url").write_text(f"sqlite:///{folder}/data.db")  # four slashes, as some write it
    slow = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    return {
        **{name: python(name) for name in ("count", "mapping", "nothing", "a_list", "flag", "negative", "unjsonable")},
        **{name: python(name) for name in ("fails", "leaves", "later", "reads")},
        "sleeps": python("sleeps", timeout="300ms"),
        "no_module": {"python": "no_such_module:f"},
        "own_interpreter": python("count", interpreter="lib/python"),
        "with_args": {
            "python": {"call": "functions:given", "args": [1, {"a": None}], "kwargs": {"x": 1, "day": "old"}},
            "params": {"day": {"type": "date", "default": "2026-01-01"}, "count": {"type": "integer", "default": 2}},
        },
        "get": {"http": f"http://{http}/"},
        "get_error": {"http": f"http://{http}/error"},
        "get_503": {"http": {"url": f"http://{http}/error", "expect_status": [503, "2xx"], "expect_text": "order"}},
        "get_json": {"http": {"url": f"http://{http}/", "expect_json": {"status": "ok", "queue": {"length": 3}}}},
        "get_wrong_json": {"http": {"url": f"http://{http}/", "expect_json": {"queue": {"length": 4}}}},
        "get_wrong_text": {"http": {"url": f"http://{http}/", "expect_text": "needle"}},
        "get_refused": {"http": "http://localhost:1/"},
        "get_never": {"http": {"url": f"http://{http}/never", "response_timeout": "300ms"}},
        "get_big": {"http": f"http://{http}/big"},
        "get_big_json": {"http": {"url": f"http://{http}/big", "expect_json": {"a": 1}}},
        "get_big_text": {"http": {"url": f"http://{http}/big", "expect_text": "needle"}},
        "redirect": {"http": f"http://{http}/here"},
        "redirect_here": {"http": {"url": f"http://{http}/here", "method": "POST", "body": "x", "follow_redirects": True}},
        "redirect_away": {"http": {"url": f"http://{http}/away", "follow_redirects": True}},
        "post": {"http": {"url": f"http://{http}/echo", "method": "POST", "json": {"a": [1]}, "headers": {"X-Key": secret}}},
        "post_secret": {"http": {"url": f"http://{http}/never", "method": "POST", "body": secret, "headers": {"X": secret}}},
        "tls_unknown": {"http": f"https://{https}/"},
        "tls_known": {"http": {"url": f"https://{https}/", "verify": "tls.pem"}},
        "tls_blind": {"http": {"url": f"https://{https}/", "verify": False}},
        "insert": {"sql": {"dsn": "data", "statement": "INSERT INTO t VALUES (:word, :n)"},
                   "params": {**loose["params"], "n": {"type": "integer", "default": 1}}},
        "select": {"sql": {"dsn": "data", "statement": "SELECT * FROM t ORDER BY n"}},
        "of_a_secret": {"sql": {"dsn": {"file": "data.url"}, "statement": "SELECT 40 + 2"}},
        "script": {"sql": {"dsn": "data", "file": "script.sql"}},
        "broken": {"sql": {"dsn": "sqlite://data.db", "file": "broken.sql"}},
        "commits": {"sql": {"dsn": "data", "statement": "INSERT INTO t VALUES ('y', 9); COMMIT; SELECT nonsense"}},
        "slow_sqlite": {"sql": {"dsn": "data", "statement": slow, "statement_timeout": "200ms"}},
        "no_database": {"sql": {"dsn": "sqlite://no/such.db", "statement": "SELECT 1"}},
        "pg_insert": {"sql": {"dsn": "pg", "statement":
                      "CREATE TABLE IF NOT EXISTS a_t (w text, n int); INSERT INTO a_t VALUES ('50%', 1), (':word', 2)"}},
        "pg_params": {"sql": {"dsn": "pg", "statement":
                      "SELECT :word::text AS w, ':word 100%' AS l, $$:word$$, 7 % 4 /* :word /* % */ */ -- :word"}, **loose},
        "pg_broken": {"sql": {"dsn": "pg", "statement": "CREATE TABLE gone (x int); SELECT 1/0"}},
        "pg_slow": {"sql": {"dsn": "pg", "statement": "SELECT pg_sleep(60)", "statement_timeout": "200ms"}},
        "pg_sleeps": {"sql": {"dsn": "pg", "statement": "SELECT pg_sleep(60)"}},
        "pg_nowhere": {"sql": {"dsn": f"postgresql://u:{PASSWORD}@localhost:1/db", "statement": "SELECT 1"}},
        "argv": {"command": ["/usr/bin/printf", "[%s]", {"param": "word"}, "after"], **word},
        "argv_default": {"command": ["/usr/bin/printf", "[%s]", {"param": "word"}], "every": "1d",
                         "params": {"word": {"default": "of old"}}},
        "variable": {"shell": 'printf "[%s]" "$SCHEDULERD_PARAM_WORD"', **word},
        "waits": {"shell": 'read line < pipe; printf "$SCHEDULERD_PARAM_WORD"', **word,
                  "cwd": ".", "overlap": "queue"},
        "loose": {"shell": 'printf "[%s]" "$SCHEDULERD_PARAM_WORD"', **loose},
        "files": {"shell": 'echo "$FROM_FILE/$BOTH/$EMPTY/"', "env": {"BOTH": "own"}, "env_file": ["variables", "-missing"]},
        "no_file": {"shell": "true", "env_file": "missing"},
        "says": {"shell": """printf '{"records_processed": 5, "message": "five", "details": {"cpu_seconds": 99}, "x": 1}' \
                          > "$SCHEDULERD_RESULT_FILE" """},
        "says_and_fails": {"shell": """echo noise; printf '{"message": "disk full", "progress": 0.5}' \
                                    > "$SCHEDULERD_RESULT_FILE"; exit 3"""},
        "says_nonsense": {"shell": 'head -c 100000 /dev/zero > "$SCHEDULERD_RESULT_FILE"'},
        "says_fifo": {"shell": 'mkfifo "$SCHEDULERD_RESULT_FILE"'},
    }  # fmt: skip


@pytest.fixture(scope="module")
def running(jobs, folder):
    sources = {"data": "sqlite://data.db", "pg": {"file": "pg.url"}}
    config = {
        "jobs": jobs,
        "sources": sources,
        "shutdown_grace": "0s",
        "defaults": {"python_path": "lib", "kill_grace": "1s"},
    }
    made = RunningDaemon(folder, config)
    made.start()
    yield made
    made.stop()
    made.close()


@pytest.fixture
def run(running):
    def ask(job_id: str, **params):
        answer = running.client.ask("POST", f"/api/v1/scheduler/jobs/{job_id}/trigger", {"params": params})
        assert answer.status == 200, answer.body
        return answer.body["result"]

    return ask


@pytest.fixture
def output(running):
    def read(run: dict) -> str:
        (path,) = (running.folder / "state" / "output").glob(f"*/{run['run_id']}.log")
        return path.read_text()

    return read


def test_a_functions_number_counts_records_and_its_output_is_kept(run, output):
    ended = run("count")

    assert (ended["status"], ended["records_processed"]) == ("success", 7)
    assert output(ended) == "counting\n"


def test_a_functions_mapping_is_its_result(run):
    ended = run("mapping")

    assert (ended["records_processed"], ended["details"]["message"], ended["details"]["a"]) == (3, "three", [1, 2])


@pytest.mark.parametrize(
    ("job_id", "warning"),
    [
        ("a_list", "a value of type list was returned"),
        ("flag", "a value of type bool was returned"),
        ("negative", "records_processed is not a whole number"),
        ("unjsonable", "the mapping that was returned is not JSON"),
    ],
)
def test_what_a_function_cannot_say_is_a_warning_and_no_failure(run, job_id, warning):
    ended = run(job_id)

    assert ended["status"] == "success"
    assert warning in ended["details"]["warnings"][0]


def test_a_function_may_return_nothing_or_be_a_coroutine(run):
    assert run("nothing")["status"] == "success"
    assert run("later")["records_processed"] == 5


def test_an_exception_is_the_reason_and_its_traceback_is_kept(run, output):
    ended = run("fails")

    assert (ended["status"], ended["exit_code"]) == ("failed", 1)
    assert ended["error_message"].startswith("ValueError: no such customer")
    assert "functions.py" in ended["details"]["traceback"]
    assert "call.py" not in ended["details"]["traceback"]
    assert "functions.py" in output(ended)


def test_a_function_that_exits_hands_on_its_status(run):
    assert run("leaves")["exit_code"] == 4


def test_a_function_that_hangs_is_killed_by_its_timeout(run):
    assert run("sleeps")["status"] == "timed_out"


def test_a_module_that_is_not_there_is_told(run):
    assert run("no_module")["error_message"] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_the_jobs_own_interpreter_is_taken(run, output):
    assert output(run("own_interpreter")) == "mine\ncounting\n"


def test_a_function_sees_no_order_and_none_of_our_folders(run, running):
    details = run("reads")["details"]

    assert details["input"] == ""
    assert details["path"][0] == str(running.folder / "lib")
    assert not [each for each in details["path"] if each.endswith("children")]
    assert details["argv"] == ["functions:reads"]


def test_parameters_are_arguments_by_name(run):
    ended = run("with_args", count="3")

    assert ended["details"]["args"] == [1, {"a": None}]
    assert ended["details"]["kwargs"] == {"x": 1, "day": "2026-01-01", "count": 3}
    assert ended["details"]["params"] == {"day": "2026-01-01", "count": 3}


def test_an_answer_with_the_right_status_is_a_success(run, output):
    ended = run("get")

    assert (ended["status"], ended["details"]["message"], ended["details"]["status"]) == ("success", "200 OK", 200)
    assert output(ended).startswith("200 OK\n\n{")


@pytest.mark.parametrize(
    ("job_id", "told"),
    [
        ("get_error", "answered 503 Service Unavailable, not 2xx"),
        ("get_wrong_json", "queue in the answer.length is 3, not 4"),
        ("get_wrong_text", "the answer does not contain 'needle'"),
        ("get_big_json", "the answer is longer than 1 MB: it was not read as JSON"),
        ("get_big_text", "the first 1 MB of the answer does not contain 'needle'"),
        ("get_refused", "the request failed: Connection refused"),
        ("get_never", "no answer within 0.3 s"),
        ("redirect", "answered 302 Found, not 2xx"),
        ("redirect_away", "answered 302 Found, to another host: only redirects to the same one are followed"),
        ("tls_unknown", "the certificate was not accepted: self-signed certificate"),
    ],
)
def test_a_wrong_answer_is_a_failure_in_words(run, job_id, told):
    ended = run(job_id)

    assert (ended["status"], ended["error_message"]) == ("failed", told)


@pytest.mark.parametrize("job_id", ["get_503", "get_json", "tls_known", "tls_blind"])
def test_what_is_expected_may_be_said(run, job_id):
    assert run(job_id)["status"] == "success"


def test_of_a_large_answer_one_megabyte_is_kept(run, output):
    assert 1024 * 1024 < len(output(run("get_big"))) < 1024 * 1024 + 200


def test_a_redirect_to_the_same_host_may_be_followed(run, output):
    echoed = json.loads(output(run("redirect_here")).partition("\n\n")[2])

    assert (echoed["method"], echoed["body"]) == ("GET", "")


def test_json_and_headers_are_sent_and_a_secret_stays_one(run, output):
    text = output(run("post"))
    echoed = json.loads(text.partition("\n\n")[2])

    assert (echoed["body"], echoed["headers"]["Content-Type"]) == ('{"a": [1]}', "application/json")
    assert echoed["headers"]["X-Key"] == "***"


def test_rows_that_were_changed_are_counted_and_rows_that_were_read_are_shown(run, output):
    assert run("insert", word="first", n=-5)["records_processed"] == 1
    ended = run("select")

    assert ended["records_processed"] >= 1
    assert output(ended).startswith("name\tn\nfirst\t-5\n")


def test_a_file_may_have_several_statements(run):
    assert run("script")["records_processed"] == 2


@pytest.mark.parametrize(
    ("job_id", "told"),
    [
        ("broken", "no such table: nowhere"),
        (
            "commits",
            "the statement begins or ends a transaction itself: it is one already, COMMIT and ROLLBACK have no place in it",
        ),
        ("slow_sqlite", "the statement was stopped after its timeout of 0.2 s"),
        ("no_database", "the database FOLDER/no/such.db cannot be opened: there is no such file"),
    ],
)
def test_a_statement_that_fails_leaves_nothing(run, running, job_id, told):
    ended = run(job_id)

    assert (ended["status"], ended["error_message"]) == ("failed", told.replace("FOLDER", str(running.folder)))
    database = sqlite3.connect(running.folder / "data.db")
    assert database.execute("SELECT count(*) FROM t WHERE name IN ('x', 'y')").fetchone() == (0,)
    database.close()


HOSTILE = [
    "'; DROP TABLE t; --",
    "$(touch /tmp/owned)",
    "`id`",
    "a\nb",
    "%s %(word)s :word",
    "-oProxyCommand=id",
    "\\",
    "ü\u2028€",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_bound_to_a_statement_as_it_is(run, running, output, value):
    run("insert", word=value, n=99)

    database = sqlite3.connect(running.folder / "data.db")
    assert (value,) in database.execute("SELECT name FROM t").fetchall()
    database.close()
    shown = " ".join(value.split("\n"))
    assert output(run("pg_params", word=value)).split("\n")[1] == f"{shown}\t:word 100%\t:word\t3"


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_one_literal_word_or_refused(running, run, output, value):
    assert output(run("loose", word=value)) == f"[{value}]"
    if "\n" in value or value.startswith("-"):
        for job_id in ("argv", "variable"):
            answer = running.client.ask("POST", f"/api/v1/scheduler/jobs/{job_id}/trigger", {"params": {"word": value}})
            assert (answer.status, answer.body["detail"][0]["loc"]) == (422, ["body", "params", "word"])
    else:
        assert output(run("argv", word=value)) == f"[{value}][after]"
        assert output(run("variable", word=value)) == f"[{value}]"


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({}, "Field required"),
        ({"wort": "x"}, "the job has no such parameter (did you mean 'word'?): its parameters are word"),
        ({"word": 3}, "Input should be a text"),
        ({"word": "a\0b"}, "Input should be a text of one line, without NUL"),
        (3, "Input should be a valid dictionary"),
    ],
)
def test_parameters_that_a_job_does_not_take_are_refused(running, params, told):
    answer = running.client.ask("POST", "/api/v1/scheduler/jobs/argv/trigger", {"params": params})

    assert (answer.status, answer.body["detail"][0]["msg"]) == (422, told)


def test_a_run_that_nobody_asked_for_has_the_defaults(running, output):
    answer = running.client.ask("POST", "/api/v1/scheduler/jobs/argv_default/trigger")

    assert output(answer.body["result"]) == "[of old]"
    assert running.history("argv_default")[0]["details"]["params"] == {"word": "of old"}


def test_a_run_that_waits_keeps_its_parameters(running, output):
    post = running.client.post
    asked = [post("jobs/waits/trigger", {"params": {"word": word}}, wait="false").body for word in ("one", "two")]
    assert asked[1]["status"] == "queued"
    for count in (1, 2):
        (running.folder / "pipe").write_text("go on\n")
        rows = running.until_run("waits", "success", count)

    assert [output(row) for row in rows] == ["two", "one"]


def test_a_repeat_with_an_idempotency_key_gets_the_first_run_and_its_parameters(running):
    asked = [
        running.client.ask(
            "POST", "/api/v1/scheduler/jobs/argv/trigger", {"params": {"word": word}}, {"Idempotency-Key": "k"}
        )
        for word in ("one", "two")
    ]

    assert asked[0].body["run_id"] == asked[1].body["run_id"]
    assert asked[1].body["result"]["details"]["params"] == {"word": "one"}


def test_a_secret_may_name_a_file_with_as_many_slashes_as_in_the_configuration(run, output):
    assert output(run("of_a_secret")).split() == ["40", "+", "2", "42"]


def test_postgresql_counts_rows_and_is_all_or_nothing(run, postgres):
    assert run("pg_insert")["records_processed"] == 2
    assert run("pg_broken")["error_message"].startswith("DivisionByZero (22012): division by zero")
    import psycopg

    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT to_regclass('gone')").fetchone() == (None,)
        assert connection.execute("SELECT w FROM a_t ORDER BY n").fetchall() == [("50%",), (":word",)]


def test_a_statement_of_postgresql_has_a_timeout(run):
    assert run("pg_slow")["error_message"] == "QueryCanceled (57014): canceling statement due to statement timeout"


def test_variables_come_from_files_too_and_the_jobs_own_win(run, output):
    assert output(run("files")) == "a b/own//\n"
    assert "there is no env_file" in run("no_file")["error_message"]


def test_a_run_says_what_it_did_and_cannot_replace_what_we_know(run, running):
    ended = run("says")

    assert (ended["status"], ended["records_processed"], ended["details"]["message"]) == ("success", 5, "five")
    assert ended["details"]["cpu_seconds"] < 9
    assert ended["details"]["warnings"] == ["the result knows no 'x'"]


@pytest.mark.parametrize(
    ("script", "limits", "told"),
    [
        (
            "while :; do :; done",
            {"cpu_time": 1},
            "signal 24 (SIGXCPU): it used more CPU time than its limit of 1 s (cpu_time)",
        ),
        (
            "exec dd if=/dev/zero of=big bs=64K count=64 2>/dev/null",
            {"file_size": "1M"},
            "signal 25 (SIGXFSZ): it wrote a larger file than its limit of 1M (file_size)",
        ),
        ("echo so long; kill -SEGV $$", {}, "signal 11 (SIGSEGV); last output: so long"),
    ],
)
def test_a_run_that_a_signal_killed_names_it_and_the_limit_behind_it(daemon, tmp_path, script, limits, told):
    running = daemon({"killed": {"shell": script, "limits": limits, "cwd": str(tmp_path)}}).start()
    result = running.client.post("jobs/killed/trigger").body["result"]

    assert result["error_message"] == f"killed by {told}"


def test_a_run_that_fails_says_why(run):
    ended = run("says_and_fails")

    assert (ended["status"], ended["error_message"]) == ("failed", "exit status 3: disk full")
    assert ended["details"]["progress"] == 0.5


@pytest.mark.parametrize(("job_id", "why"), [("says_nonsense", "larger than 64 KiB"), ("says_fifo", "not a regular file")])
def test_a_result_that_cannot_be_read_is_a_warning(run, job_id, why):
    ended = run(job_id)

    assert ended["status"] == "success"
    assert why in ended["details"]["warnings"][0]


def everything_public_about(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(("job_id", "program"), [("pg_sleeps", b"sql_statement"), ("post_secret", b"http_request")])
def test_a_secret_is_in_no_argument_and_no_variable(running, job_id, program):
    asked = running.client.post(f"jobs/{job_id}/trigger", wait="false").body
    seen = until(
        lambda: [text for pid in os.listdir("/proc") if program in (text := everything_public_about(pid))],
        f"a process of {job_id}",
    )

    assert not [text for text in seen if PASSWORD.encode() in text]
    running.signal(0)
    assert asked["status"] in ("queued", "running")


def test_a_secret_is_in_no_history_output_or_log(running, run):
    ended = run("pg_nowhere")

    assert ended["status"] == "failed"
    state = running.folder / "state"
    copy = state / "last_good" / "config.json"  # of the configuration, in which it stands
    written = [path for path in state.rglob("*") if path.is_file() and path != copy] + [running.log_path]
    assert [path for path in written if PASSWORD.encode() in path.read_bytes()] == []
    assert PASSWORD not in json.dumps([running.history(job_id) for job_id in ("post", "pg_insert", "pg_nowhere")])


def test_no_result_file_stays(running):
    ended = {run["run_id"] for job_id in ("says", "count", "get", "select") for run in running.history(job_id)}
    assert [path for path in (running.folder / "state").rglob("*.result") if path.stem in ended] == []
