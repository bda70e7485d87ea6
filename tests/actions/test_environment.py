"""What a job's settings make of its process: whom it runs as, what it may use, and which variables it sees."""

import ast
import json
import pwd
from pathlib import Path

import pytest

from schedulerd.actions.environment import limits_of
from schedulerd.actions.programs import call
from schedulerd.actions.programs.http_request import _hidden
from schedulerd.actions.programs.sql_statement import statements, to_percent
from schedulerd.actions.registry import PREPARE
from schedulerd.config.loader import load
from schedulerd.config.settings_actions import ACTIONS
from schedulerd.core.errors import ConfigError, StartError
from schedulerd.core.models import Param, ParamType, ParamWord, Secret
from schedulerd.process.spec import Limits
from schedulerd.secrets.job_secrets import known_secrets
from tests.support.builders import a_job, a_run


def read_http(given):
    """Return the options of an `http` job, as they are read from the file."""
    return ACTIONS["http"].kind.read(given, (), lambda path, text: pytest.fail(f"{path}: {text}"))


as_root = pytest.mark.root("only root can run processes as somebody else")


@pytest.fixture
def spec(tmp_path):
    def prepare(run=None, **settings):
        job = a_job(**{"action": "shell", "options": {"shell": "true"}, **settings})
        return PREPARE[job.action](job, run or a_run(), f"{tmp_path}/state/output/2026-01-01/id.log")

    (tmp_path / "state").mkdir()
    return prepare


@pytest.fixture
def job(tmp_path):
    def read(text):
        path = tmp_path / "c.yaml"
        path.write_text(text if text.startswith(("defaults", "sources")) else f"jobs:\n  j: {text}\n")
        path.chmod(0o600)
        return load(str(path)).jobs["j"]

    return read


@as_root
def test_another_user_has_all_of_its_groups_and_its_own_variables(spec, tmp_path):
    nobody = pwd.getpwnam("nobody")
    made = spec(user="nobody", group="daemon")

    assert (made.identity.uid, made.identity.gid) == (nobody.pw_uid, 1)
    assert 1 in made.identity.groups
    assert (made.env["USER"], made.env["LOGNAME"], made.env["HOME"]) == ("nobody", "nobody", nobody.pw_dir)
    assert made.env["SHELL"] == "/bin/sh"  # nobody's own lets nobody in
    file = tmp_path / "state" / "results" / "id.result"
    assert made.env["SCHEDULERD_RESULT_FILE"] == str(file)
    assert file.stat().st_uid == nobody.pw_uid


def test_a_run_is_told_what_it_follows(spec):
    made = spec(a_run(details={"after": {"dump": "run-1", "sync": "run-2"}}))

    assert (made.env["SCHEDULERD_AFTER_JOBS"], made.env["SCHEDULERD_AFTER_RUNS"]) == ("dump sync", "run-1 run-2")
    assert "SCHEDULERD_AFTER_JOBS" not in spec().env


@as_root
def test_a_user_may_be_a_number_and_a_group_stand_alone(spec):
    assert spec(user="65534").identity.uid == 65534
    assert (spec(group="1").identity.uid, spec(group="1").identity.gid) == (0, 1)


@as_root
@pytest.mark.parametrize("name", ["no-such-user", "4294967", "0"])
def test_a_user_who_is_not_there_or_is_root_by_another_name_starts_nothing(spec, job, name):
    with pytest.raises(StartError):
        spec(user=name)
    with pytest.raises(ConfigError):
        job(f"{{shell: x, user: {name}}}")


@as_root
def test_root_must_be_spelt_out(spec, job):
    assert spec(user="root").identity.uid == 0
    assert job("{shell: x, user: root}").user == "root"


def test_without_anything_a_process_is_ours_and_unbounded(spec):
    made = spec()

    assert (made.identity, made.limits, made.umask, made.input, made.keeps_leftovers) == (None, None, None, None, False)
    assert made.output_limit_bytes == 10 * 1024**2


def test_settings_of_the_process_are_read_and_handed_on(job, spec):
    text = """{shell: x, umask: 022, nice: -5, ionice: "best-effort:7", leftovers: keep, output_limit: 1M,
      limits: {open_files: 64, file_size: 1M, cpu_time: 90s, core: 0}}"""
    read = job(text)
    fields = ("umask", "nice", "ionice", "keeps_leftovers", "output_limit_bytes", "limits")
    made = spec(**{name: getattr(read, name) for name in fields})

    assert (made.umask, made.keeps_leftovers, made.output_limit_bytes) == (0o022, True, 1024**2)
    rlimits = {"NOFILE": (64, 64), "FSIZE": (1024**2, 1024**2), "CPU": (90, 95), "CORE": (0, 0)}
    assert made.limits == Limits(rlimits, -5, (2, 7))


def test_limits_of_a_job_are_beside_those_of_defaults(job):
    text = "defaults: {limits: {core: 0, processes: 9}, nice: 5}\njobs: {j: {shell: x, limits: {processes: 7}}}"

    assert (job(text).limits, job(text).nice) == ({"core": 0, "processes": 7}, 5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{shell: x, umask: 888}", "an umask"),
        ("{shell: x, env: {SCHEDULERD_RUN_ID: y}}", "'SCHEDULERD_RUN_ID' is not a name of an environment variable that a"),
        ("{shell: x, env: {SCHEDULERD_LAST_SUCCESS_AT_: y}}", "SCHEDULERD_… is reserved"),
        ("{shell: x, nice: 20}", "from -20 to 19"),
        ("{shell: x, ionice: fast}", "is not idle"),
        ("{shell: x, limits: {open_file: 9}}", "did you mean 'open_files'?"),
        ("{shell: x, leftovers: stay}", "expected kill or keep"),
        ("{python: nothing}", "'nothing' is not MODULE:FUNCTION"),
        ("{python: {args: [1]}}", "'call' is missing"),
        ("{http: ftp://host/}", "expected an http:// or https:// URL"),
        ("{http: {url: 'http://h/', expect_status: 2x}}", "a status such as 200 or 2xx"),
        ("{http: {url: 'http://h/', body: x, json: 1}}", "either body or json"),
        ("{http: {url: 'http://h/', headers: {'a b': c}}}", "a key of 3 characters is not a name of a header"),
        ("{http: {url: 'http://h/', verify: 3}}", "expected true, false or a file"),
        ("{sql: {dsn: nowhere, statement: x}}", "does not name a source"),
        ("{sql: {dsn: history, statement: x}}", "is not a source or URL of sqlite:// or postgresql://"),
        ("{sql: {dsn: 'redis://h', statement: x}}", "is not a source or URL of sqlite:// or postgresql://"),
        ("{sql: {dsn: 'sqlite://x'}}", "either statement or file"),
        ("{sql: {dsn: 'sqlite://x', statement: x, file: y}}", "either statement or file"),
    ],
)
def test_a_setting_that_cannot_be_is_a_mistake(job, text, told):
    with pytest.raises(ConfigError) as error:
        job(text)

    assert told in str(error.value)


def test_a_source_is_looked_up_and_paths_are_taken_from_the_file(job, tmp_path):
    text = "sources: {db: 'sqlite://x.db'}\njobs: {j: {sql: {dsn: db, file: q.sql}, env_file: [a, -/b], python_path: lib}}"
    read = job(text)

    assert (read.options["dsn"], read.options["file"]) == (f"sqlite://{tmp_path}/x.db", f"{tmp_path}/q.sql")
    assert (read.env_files, read.python_path) == ((f"{tmp_path}/a", "-/b"), (f"{tmp_path}/lib",))


@pytest.mark.parametrize("line", ["no equals sign", "1A=x", "A='s3cret", "A=\0", "=x"])
def test_a_line_that_sets_nothing_is_told_without_its_value(spec, tmp_path, line):
    (tmp_path / "env").write_text(f"# first\n{line}\n")

    with pytest.raises(StartError, match="line 2: expected KEY=VALUE") as error:
        spec(env_files=(str(tmp_path / "env"),))
    assert "s3cret" not in str(error.value)


def test_no_file_of_variables_says_who_a_run_is(spec, tmp_path):
    run = a_run(scheduled_at=None)
    lines = (f"SCHEDULERD_{name}=x\n" for name in ("RUN_ID", "JOB_ID", "SCHEDULED_AT", "NEW", "LAST_SUCCESS_AT"))
    (tmp_path / "env").write_text("".join(lines))
    env = spec(run, env_files=(str(tmp_path / "env"),)).env

    assert (env["SCHEDULERD_RUN_ID"], env["SCHEDULERD_JOB_ID"]) == (run.run_id, "job")
    assert [name for name, value in env.items() if value == "x"] == ["SCHEDULERD_LAST_SUCCESS_AT"]


def test_a_parameter_is_one_word_and_its_variable_cannot_be_replaced(spec):
    given = a_run(details={"params": {"day": "2026-02-03"}})
    made = spec(
        given, action="command", options={"command": ("/bin/echo", ParamWord("day"), ParamWord("fast"))},
        params={"day": Param(ParamType.DATE, "2026-01-01"), "fast": Param(ParamType.BOOLEAN, True)},
        env={"SCHEDULERD_PARAM_DAY": "x", "SCHEDULERD_RESULT_FILE": "/etc/passwd"},
    )  # fmt: skip

    assert made.argv == ["/bin/echo", "2026-02-03", "true"]
    assert made.env["SCHEDULERD_PARAM_DAY"] == "2026-02-03"
    assert made.env["SCHEDULERD_RESULT_FILE"].endswith("id.result")


def test_a_value_that_does_not_fit_the_declaration_any_more_starts_nothing(spec):
    with pytest.raises(StartError, match=r"params.day: the job has no such parameter"):
        spec(a_run(details={"params": {"day": "2026-02-03"}}))


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "€", "a\0b"])
def test_a_header_that_would_be_two_is_refused_without_its_value(spec, tmp_path, value):
    (tmp_path / "key").write_bytes(value.encode())
    headers = {"X-Key": Secret("file", str(tmp_path / "key"))}
    options = {
        "url": "http://h/", "method": "GET", "headers": headers, "body": None, "json": None,
        "expect_status": ("2xx",), "expect_text": None, "expect_json": None, "verify": True, "follow_redirects": False,
        "response_timeout": 1.0,
    }  # fmt: skip
    with pytest.raises(StartError) as error:
        spec(action="http", options=options)
    assert value not in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("SELECT :day", "SELECT %(day)s"),
        ("SELECT :day::date", "SELECT %(day)s::date"),
        ("SELECT x::day, :other", "SELECT x::day, :other"),
        ("SELECT ':day', 'it''s :day' || :day", "SELECT ':day', 'it''s :day' || %(day)s"),
        (r"SELECT E'\':day', :day", r"SELECT E'\':day', %(day)s"),
        (r"SELECT '\', :day", r"SELECT '\', %(day)s"),
        ('SELECT ":day", :day', 'SELECT ":day", %(day)s'),
        ("SELECT 5 % 3 -- :day 1%\n, :day", "SELECT 5 %% 3 -- :day 1%%\n, %(day)s"),
        ("/* :day /* :day */ :day */ :day", "/* :day /* :day */ :day */ %(day)s"),
        ("$$ :day $$ $a$ $$ :day $a$ :day", "$$ :day $$ $a$ $$ :day $a$ %(day)s"),
        ("a[1:day_of]", "a[1:day_of]"),
    ],
)
def test_names_become_places_of_psycopg_outside_of_texts_only(given, expected):
    assert to_percent(given, {"day"}) == expected


def test_any_python_from_3_8_on_can_read_the_program_that_calls_functions():
    source = Path(call.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    names = [each for node in ast.walk(tree) if isinstance(node, ast.Import) for each in (one.name for one in node.names)]

    assert set(names) <= {"asyncio", "importlib", "inspect", "json", "os", "sys", "traceback"}
    assert "from __future__ import annotations" in source


def test_a_secret_is_hidden_in_each_form_that_it_may_have():
    given = {"hidden": ['key "1" &', "", "abc"]}

    assert _hidden('x key "1" & key \\"1\\" & key%20%221%22%20%26 abc', given) == "x *** *** *** abc"


def test_the_parts_of_a_secret_url_and_of_a_secret_header_are_hidden(spec, monkeypatch):
    monkeypatch.setenv("URL", "https://me:p%40ss@hooks.example/services/T0AAAAAAA/in?token=TOKEN%2Ftoken&v=2")
    monkeypatch.setenv("AUTH", "Bearer abcdefghijkl")
    options = read_http({"url": {"env": "URL"}, "headers": {"Authorization": {"env": "AUTH"}}})
    given = json.loads(spec(action="http", options=options).input)
    told = "/services/T0AAAAAAA/in TOKEN/token TOKEN%2Ftoken v=2 p@ss bWU6cEBzcw== abcdefghijkl"

    assert _hidden(told, given) == "/***/***/in *** *** v=2 *** *** ***"
    assert {b"T0AAAAAAA", b"TOKEN/token", b"p@ss"} <= set(known_secrets(a_job(action="http", options=options)))


def test_the_password_of_an_open_url_is_hidden_and_nothing_else_of_it(spec):
    given = json.loads(spec(action="http", options=read_http("http://me:sesame@host/a/long/pathname?q=12345678")).input)

    assert _hidden("sesame bWU6c2VzYW1l /a/long/pathname?q=12345678", given) == "*** *** /a/long/pathname?q=12345678"


def test_a_script_is_cut_where_sqlite_says_that_a_statement_ends():
    script = "INSERT INTO t VALUES (';'); -- a;b\nCREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END; SELECT 3"

    assert [each.strip() for each in statements(script)] == [
        "INSERT INTO t VALUES (';');",
        "-- a;b\nCREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; SELECT 2; END;",
        "SELECT 3",
    ]


def test_limits_of_the_whole_run_are_told_apart_from_those_of_each_process(job):
    made = limits_of(job("{shell: x, limits: {memory: 1M, cpus: 0.5, pids: 7, core: 0}}"))

    assert made == Limits({"CORE": (0, 0)}, of_run={"memory": 1024**2, "cpus": 0.5, "pids": 7})


@pytest.mark.parametrize("limits", ["{memory: lots}", "{cpus: 0}", "{pids: 0}"])
def test_limits_that_mean_nothing_are_refused(job, limits):
    with pytest.raises(ConfigError, match="limits"):
        job(f"{{shell: x, limits: {limits}}}")
