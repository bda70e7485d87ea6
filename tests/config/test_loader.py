"""Configurations: every mistake is found at once, in its place, and nothing unsafe is taken."""

import json
import os
import re
import socket
from pathlib import Path

import jsonschema
import pytest
import yaml

from schedulerd.config.json_schema import json_schema
from schedulerd.config.loader import load
from schedulerd.config.yaml import DEEPEST, Document
from schedulerd.core.errors import ConfigError
from schedulerd.core.models import CatchUp, Overlap, Secret
from tests.support.builders import NOON

ROOT = Path(__file__).parents[2]

TEN_MISTAKES = """\
timezone: Europe/Roma
state_dri: x
jobs:
  a: {cron: "61 * * * *", command: [/bin/true]}
  b: {every: 10x, shell: "x"}
  c: {command: ls}
  d: {cron: "0 0 30 2 *", command: [/bin/true]}
  e: {shell: x, command: [/bin/true]}
  f: {evry: 1m, shell: x}
  g: {timeout: soon, shell: x, overlap: skipp}
  a: {shell: y}
  H: {shell: y}
  i: {backup: {source: foo}}
  j: {shell: y, enabled: yes}
"""


def write(folder: Path, text: str, name: str = "c.yaml") -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def mistakes(folder: Path, text: str) -> list[str]:
    path = write(folder, text)
    with pytest.raises(ConfigError) as error:
        load(path)
    return [str(problem).removeprefix(path + ":") for problem in error.value.problems]


def job_from(folder: Path, text: str):
    (job,) = load(write(folder, "jobs:\n  j: " + text)).jobs.values()
    return job


def test_every_mistake_is_told_at_once_with_line_and_column(tmp_path):
    found = mistakes(tmp_path, TEN_MISTAKES)

    places = [":".join(text.split(":")[:2]) for text in found]
    assert places == [
        "1:1",
        "2:1",
        "4:7",
        "5:7",
        "6:7",
        "7:7",
        "8:3",
        "9:7",
        "10:7",
        "10:32",
        "11:3",
        "12:3",
        "13:16",
        "14:17",
    ]
    assert "timezone: there is no time zone 'Europe/Roma'" in found[0]
    assert "unknown key 'state_dri' (did you mean 'state_dir'?)" in found[1]
    assert "jobs.a.cron: '61 * * * *': minute 61 is outside 0 to 59" in found[2]
    assert "for a shell line use shell:" in found[4]
    assert "can never be due" in found[5]
    assert "found command and shell" in found[6]
    assert "(did you mean 'every'?)" in found[7]
    assert "(did you mean 'skip'?)" in found[9]
    assert "duplicate key 'a'" in found[10]
    assert "a text of 3 characters does not name a source: expected one of history" in found[12]
    assert "expected true or false, not 'yes'" in found[13]


def test_a_job_is_built_from_defaults_and_its_own_settings(tmp_path):
    text = """
timezone: Europe/Rome
defaults: {timeout: 1h, overlap: allow, env: {A: "1", B: two}}
jobs:
  j: {cron: "0 3 * * *", command: [ls, 5], catch_up: none, env: {B: 2, KEY: {file: /etc/key}}, cwd: sub}
"""
    job = load(write(tmp_path, text)).jobs["j"]

    assert (job.timeout_seconds, job.overlap, job.catch_up) == (3600, Overlap.ALLOW, CatchUp.NONE)
    assert job.env == {"A": "1", "B": "2", "KEY": Secret("file", "/etc/key")}
    assert job.options == {"command": ("ls", "5")}
    assert job.timezone == "Europe/Rome"
    assert job.cwd == str(tmp_path / "sub")


def test_two_loads_of_a_file_give_equal_jobs(tmp_path):
    path = write(tmp_path, "jobs: {j: {cron: '0 3 * * *', shell: x}, k: {every: 1m, health_check: {}}}")

    assert load(path).jobs == load(path).jobs


def test_paths_in_urls_and_secrets_are_taken_from_the_files_folder(tmp_path):
    text = """
store: sqlite:////%s/h.db
sources: {a: "sqlite://a.db", b: "sqlite:////srv/b.db", c: {file: c.url}}
jobs: {j: {shell: x, env: {K: {file: key}}, }}
"""
    config = load(write(tmp_path, text % tmp_path))

    assert config.store == f"sqlite://{tmp_path}/h.db"
    assert config.sources == {
        "a": f"sqlite://{tmp_path}/a.db", "b": "sqlite:///srv/b.db", "c": Secret("file", str(tmp_path / "c.url")),
    }  # fmt: skip
    assert config.jobs["j"].env == {"K": Secret("file", str(tmp_path / "key"))}


def test_included_files_add_jobs_and_have_defaults_of_their_own(tmp_path):
    write(tmp_path, "defaults: {timeout: 5s}\njobs: {b: {shell: y}}", "jobs.d/b.yaml")
    config = load(write(tmp_path, "include: [jobs.d/*.yaml]\ndefaults: {kill_grace: 1s}\njobs: {a: {shell: x}}"))

    assert list(config.jobs) == ["a", "b"]
    assert (config.jobs["b"].timeout_seconds, config.jobs["b"].kill_grace_seconds) == (5, 1)
    assert config.jobs["a"].timeout_seconds is None


def test_a_job_over_two_files_is_told_with_both_places(tmp_path):
    write(tmp_path, "jobs: {a: {shell: y}}", "jobs.d/b.yaml")

    (found,) = mistakes(tmp_path, "include: [jobs.d/*.yaml]\njobs:\n  a: {shell: x}")

    assert "duplicate job 'a': already defined in" in found
    assert "c.yaml:3" in found


def test_a_file_with_another_ending_beside_the_included_ones_is_warned_of(tmp_path):
    write(tmp_path, "jobs: {b: {shell: y}}", "jobs.d/b.yml")
    config = load(write(tmp_path, "include: [jobs.d/*.yaml]\njobs: {a: {shell: x}}"))

    (warning,) = config.warnings
    assert "b.yml in" in str(warning)
    assert list(config.jobs) == ["a"]


def test_an_included_file_may_not_change_the_daemon(tmp_path):
    write(tmp_path, "state_dir: /tmp", "jobs.d/b.yaml")

    (found,) = mistakes(tmp_path, "include: [jobs.d/*.yaml]")

    assert "'state_dir' is valid in the main file only" in found


def test_a_program_that_is_not_there_is_a_warning(tmp_path):
    config = load(write(tmp_path, "jobs: {a: {command: [/no/such/program]}}"))

    (warning,) = config.warnings
    assert "c.yaml:1:22: warning: jobs.a.command[0]: program '/no/such/program' does not exist" in str(warning)


def test_a_folder_that_is_not_there_is_a_warning(tmp_path):
    config = load(write(tmp_path, "jobs: {a: {shell: x, cwd: /no/such/folder}, b: {shell: x, cwd: /tmp}}"))

    (warning,) = config.warnings
    assert "jobs.a.cwd: folder /no/such/folder does not exist on this host now" in str(warning)


@pytest.mark.parametrize(
    ("text", "help_"),
    [
        ("cron: * * * * *", "in quotes"), ("cron: @daily", "begins with @"), ("\tshell: x", "not tabs"),
        ("shell: echo a: b", "a colon and a space"),
    ],
)  # fmt: skip
def test_what_is_no_yaml_is_told_with_a_way_out(tmp_path, text, help_):
    (found,) = mistakes(tmp_path, f"jobs:\n  a:\n    {text}\n")

    assert help_ in found


@pytest.mark.parametrize(
    ("line", "is_warned"),
    [
        ("echo a > /dev/stderr", True), ("echo a 1>/dev/stdout; b", True), ("echo a >| '/proc/self/fd/2'", True),
        ("echo a >> /dev/stderr", False), ("echo a >&2", False), ("cat < /dev/stdin > /dev/null", False),
    ],
)  # fmt: skip
def test_a_shell_line_that_erases_its_own_output_is_a_warning(tmp_path, line, is_warned):
    config = load(write(tmp_path, yaml.safe_dump({"jobs": {"a": {"shell": line}}})))

    assert ["truncates the output" in str(each) for each in config.warnings] == [True] * is_warned


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a mapping"),
        ("[]", "expected a mapping with jobs:, not a list"),
        ("jobs: [1]", "expected a mapping of jobs"),
        ("jobs: {a: x}", "expected a mapping with an action"),
        ("jobs: {a: {}}", "expected exactly one action"),
        ("a: [", "not YAML"),
        ("a: !!python/object:os.system x", "is not allowed"),
        ("jobs: {a: {<<: {shell: x}}}", "merge keys"),
        ("jobs: {a: {shell: x, cron: '* * * * *', every: 1m}}", "already has 'cron'"),
        ("jobs: {a: {shell: x, cron: 12:30}}", "five fields"),
        ("jobs: {a: {shell: '  '}}", "is not a line for /bin/sh"),
        ("jobs: {a: {shell: x, env: {'A-B': 1}}}", "is not a name of an environment variable"),
        ("jobs: {a: {shell: x, env: {A: {env: X, file: Y}}}}", "expected a secret: one of"),
        ("jobs: {a: {shell: x, success_exit_codes: []}}", "not an empty list"),
        ("jobs: {a: {shell: x, success_exit_codes: [300]}}", "from 0 to 255"),
        ("jobs: {a: {backup: {}}}", "expected exactly one of source, folder"),
        ("jobs: {a: {backup: {source: history, keep: {dayly: 1}}}}", "did you mean 'daily'"),
        ("jobs: {a: {shell: x, retry: 1}}", "did you mean 'retries'"),
        ("jobs: {a: {shell: x, misfire: 1h}}", "did you mean 'misfire_grace'"),
        ("jobs: {'../a': {shell: x}}", "is not a job id"),
        ("api: {listen: nowhere}", "is not HOST:PORT"),
        ("api: {listen: '127.0.0.1:99999'}", "invalid port 99999"),
        ("api: {peers: [{role: boss, user: x}]}", "expected viewer or operator or admin"),
        ("api: {peers: [{role: viewer}]}", "expected either user or group"),
        ("store: mysql://x", "expected sqlite:///PATH"),
        ("sources: {x: 'mysql://u:p@h/d'}", "a text of 15 characters: expected a URL with one of"),
        ("jobs: {a: {health_check: {postgresql: nope}}}", "does not name a source: expected a name in sources:"),
        ("sources: {r: 'redis://h'}\njobs: {a: {health_check: {postgresql: r}}}", "'r' is not a source or URL of "),
        ("jobs: {a: {health_check: {redis: 'http://h'}}}", "is not a source or URL of redis:// or"),
        ("jobs: {a: {health_check: {targets: {t: {tcp: 'h:99999'}}}}}", "is not HOST:PORT with a port from 1 to 65535"),
        ("jobs: {a: {backup: {source: 'mysql://h/d'}}}", "is not a source or URL of sqlite:// or postgresql://"),
        ("jobs: {a: {backup: {source: history, folder: /srv}}}", "expected exactly one of source, folder"),
        ("jobs: {a: {backup: {source: history, content: globals}}}", "only a PostgreSQL server has globals"),
        ("jobs: {a: {backup: {source: history, encrypt: {}}}}", "expected exactly one of age, gpg"),
        ("jobs: {a: {backup: {source: history, encrypt: {age: []}}}}", "an empty list"),
        ("jobs: {a: {user: root, backup: {source: history}}}", "'directory' is missing"),
        ("jobs: {a: {restore_drill: {of: b}}, bb: {backup: {source: history}}}", "did you mean 'bb'"),
        (
            "sources: {r: 'postgresql://h/d'}\njobs: {a: {restore_drill: {of: b}}, b: {backup: {source: r}}}",
            "'into' is missing",
        ),
        ("include: [nothing.yaml]", "file 'nothing.yaml' does not exist"),
        ("api: {listen: 'localhost:²'}", "is not HOST:PORT"),
        ("shutdown_grace: 9999999999d", "at most 100 years"),
        ("jobs: {a: {shell: x, misfire_grace: 9999999999d}}", "at most 100 years"),
        ("jobs: {a: {shell: x, every: 9999999999d}}", "at most 100 years"),
        ("a: \"x\0y\"", "not YAML"),
        ("{" * 100_000, "nested deeper"),
        ("[" * 50 + "]" * 50, f"nested deeper than {DEEPEST} levels"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
         "g: [*f,*f,*f,*f,*f,*f,*f,*f,*f]", "more than 300,000 values"),
        ("a: &a [*a]", "nested deeper"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_a_reason(tmp_path, text, why):
    assert any(why in found for found in mistakes(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"jobs: \xff\xfe\x80")
    (tmp_path / "c.yaml").chmod(0o600)

    with pytest.raises(ConfigError, match="not YAML"):
        load(str(tmp_path / "c.yaml"))


def test_a_file_that_others_can_change_is_refused(tmp_path):
    path = write(tmp_path, "jobs: {}")
    os.chmod(path, 0o666)

    with pytest.raises(ConfigError, match="chmod go-w"):
        load(path)


def test_a_missing_file_and_a_fifo_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")

    for name, why in (("nothing", "No such file"), ("fifo", "not a regular file")):
        with pytest.raises(ConfigError, match=why):
            load(str(tmp_path / name))


def test_only_true_and_false_are_booleans_and_times_stay_texts(tmp_path):
    text = "a: yes\nb: true\nc: 12:30\nd: 2027-01-01\ne: 010\nf: 10\ng: 1.50\nh: ~\ni: 'true'\n"

    assert Document("c.yaml", text.encode()).value == {
        "a": "yes", "b": True, "c": "12:30", "d": "2027-01-01", "e": "010", "f": 10, "g": "1.50", "h": None, "i": "true",
    }  # fmt: skip


def test_the_example_is_right_and_has_no_warnings():
    config = load(str(ROOT / "config.example.yaml"))

    builtin = {"health_check", "daily_analytics", "history_backup", "cleanup"}
    actions = {"leap_years", "oldest_run", "say", "counted", "flaky"}
    assert builtin | {"disk_usage", "heartbeat", "greeting", "after_greeting", "office_hours", *actions} == set(config.jobs)
    assert config.warnings == ()


def test_programs_that_a_backup_misses_are_warned_of(tmp_path):
    text = "sources: {d: 'postgresql://h/d'}\njobs: {a: {env: {PATH: /none}, backup: {source: d, compress: zstd}}}"
    warnings = " ".join(str(each) for each in load(write(tmp_path, text)).warnings)

    assert re.findall("program '(.*?)' does not exist", warnings) == ["pg_dump", "pg_restore", "zstd"]


def test_the_commented_examples_are_right_too(tmp_path):
    lines = (ROOT / "config.example.yaml").read_text().splitlines()
    start = lines.index("  # nightly_report:            # only started by hand or by a program: no trigger")
    head = [
        "sources: {notes: 'sqlite:////srv/notes.db', main_db: 'postgresql://db/main'}",
        "calendars: {holidays: holidays.yaml}",
        "jobs:",
    ]
    write(tmp_path, "- 2026-12-25", "holidays.yaml")
    text = "\n".join([*head, *(line.replace("  # ", "  ", 1) for line in lines[start:])])

    shown = {"nightly_report", "notes_backup", "month_end", "mirror", "moving_day", "both", "sync", "ledger"}
    shown |= {"nightly_dump", "weekly_proof"}
    assert set(load(write(tmp_path, text)).jobs) == shown


TIMES = """\
calendars: {feasts: feasts.yaml, none: none.ics}
defaults: {blackout: [sat..sum]}
jobs:
  a: {cron: ["0 3 * * *", "61 * * * *"], shell: x}
  b: {calendar: "*-02-30", shell: x}
  c: {every: 2 mondays, shell: x}
  d: {at: [2027-01-01, soon], shell: x}
  e: {triggers: [{every: 1m}, {cron: x}], shell: x}
  f: {after: {job: aa}, shell: x}
  g: {after: {all: [h, d]}, shell: x}
  h: {after: {job: g, when: failure}, shell: x}
  i: {cron: "0 3 * * *", dst: {gap: maybe}, shell: x}
  j: {every: 1m, after: g, shell: x}
  k: {cron: "0 3 * * *", blackout: {calendar: feast}, shell: x}
  l: {every: 1m, blackout: [mon..sun], shell: x}
  m: {cron: "0 3 * * *", not_before: 2027-01-01, not_after: 2026-01-01, shell: x}
  n: {cron: "0 3 * * *", jitter: often, on_blackout: wait, shell: x}
"""


def test_mistakes_about_time_are_told_in_their_places(tmp_path):
    write(tmp_path, "- 2027-01-06", "feasts.yaml")
    found = mistakes(tmp_path, TIMES)

    expected = [
        ("1:34", "calendars.none: "),
        ("2:23", "defaults.blackout[0]: 'sat..sum': 'sum' is not a weekday (did you mean 'sun'?)"),
        ("4:27", "jobs.a.cron[1]: '61 * * * *': minute 61"), ("5:7", "jobs.b.calendar: '*-02-30': no year"),
        ("6:7", "jobs.c.every: '2 mondays'"), ("7:7", "jobs.d.at: 'soon': expected a date and time"),
        ("8:32", "jobs.e.triggers[1].cron: 'x': expected five fields"),
        ("9:7", "jobs.f.after: there is no job 'aa' (did you mean 'a'?)"),
        ("10:7", "jobs.g.after: circular dependency: g after h after g"), ("11:7", "jobs.h.after: circular dependency"),
        ("12:32", "jobs.i.dst.gap: expected run or skip, not 'maybe'"), ("13:18", "jobs.j.after: 'g': the job already"),
        ("14:26", "jobs.k.blackout: 'calendar: feast': there is no calendar 'feast' (did you mean 'feasts'?)"),
        ("15:18", "jobs.l.blackout: 'mon..sun': the whole week"), ("16:50", "jobs.m.not_after: "),
        ("17:26", "jobs.n.jitter: 'often'"), ("17:41", "jobs.n.on_blackout: expected skip or defer"),
    ]  # fmt: skip
    assert [text.split(": ")[0] for text in found] == [place for place, _ in expected]
    assert [text for text, (_, words) in zip(found, expected, strict=True) if words not in text] == []


def test_a_default_blackout_holds_for_every_job_and_a_job_may_have_none(tmp_path):
    jobs = load(
        write(
            tmp_path,
            "defaults: {blackout: sat..sun}\njobs: {a: {every: 1m, shell: x}, b: {every: 1m, blackout: [], shell: x}}",
        )
    ).jobs

    assert jobs["a"].trigger.has_blackouts
    assert not jobs["b"].trigger.has_blackouts


def test_every_job_has_its_own_jitter_and_every_host_its_own_spread(tmp_path):
    text = "defaults: {jitter: 1h, spread: 1h}\njobs: {a: {cron: '0 3 * * *', shell: x}, b: {cron: '0 3 * * *', shell: x}}"
    one, two = (job.trigger for job in load(write(tmp_path, text)).jobs.values())

    assert one.next_after(NOON) != two.next_after(NOON)
    assert one.host == f"{socket.gethostname()}/a"


# The JSON Schema and the loader say the same of a file, as far as a schema can say it.

SCHEMA = jsonschema.Draft202012Validator(json_schema())


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_published_schema_is_the_one_of_the_program():
    assert json.loads((ROOT / "contrib" / "schedulerd.schema.json").read_text()) == json_schema()


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "config.example.yaml").read_text(),
        "jobs: {a: {shell: x}}",
        "jobs: {a: {command: [a, 1], env: {A: true, B: {credential: c}}}}",
        "jobs: {a: {every: 90, health_check: {storage: [/], min_free_percent: 3}}}",
        "jobs: {a: {timeout: 1h 30m, shell: x}}",
        "jobs: {a: {every: 10m, after: finish, shell: x}}",
        "jobs: {a: {cron: ['0 3 * * *', '@weekly'], dst: {gap: skip}, jitter: 5m, spread: 900, shell: x}}",
        "jobs: {a: {calendar: daily, not_before: '2027-01-01', not_after: '2028-01-01', shell: x}}",
        "jobs: {a: {at: ['2027-01-01T03:00'], blackout: [sat..sun], on_blackout: defer, shell: x}}",
        "jobs: {a: {startup: true, shell: x}, b: {after: {all: [a], when: always}, shell: x}}",
        "jobs: {a: {triggers: [{startup: true}, {every: 1h}], catch_up: all, catch_up_limit: 3, shell: x}}",
        "jobs: {a: {retries: 3, retry_on: [75, timed_out], retry_backoff: 1.5, deadline: 1h, shell: x}}",
        "pools: {db: 4, net: {limit: 10}}\njobs: {a: {pool: db, uses: {net: 10}, mutex: [m, n], priority: -5, shell: x}}",
        "jobs: {a: {overlap: replace, only_if: {load1_below: 4, free_memory_above: 500M}, only_if_within: 1m, shell: x}}",
        "defaults: {max_instances: 3, overlap: queue, priority: 7}\njobs: {a: {mutex: m, shell: x}}",
        "defaults: {blackout: '22:00..06:00', dst: {repeat: both}, catch_up_age: 1d}\ncatch_up_spread: 0\njobs: {}",
    ],
)
def test_what_the_loader_takes_the_schema_takes(tmp_path, text):
    load(write(tmp_path, text))

    assert list(SCHEMA.iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "job: {}",
        "jobs: {a: {}}",
        "jobs: {a: {shell: x, command: [y]}}",
        "jobs: {a: {shell: x, cron: '* * * * *', every: 1m}}",
        "jobs: {a: {shell: x, evry: 1m}}",
        "jobs: {A: {shell: x}}",
        "jobs: {a: {shell: ' '}}",
        "jobs: {a: {command: []}}",
        "jobs: {a: {command: ls}}",
        "jobs: {a: {shell: x, timeout: soon}}",
        "jobs: {a: {shell: x, overlap: maybe}}",
        "jobs: {a: {shell: x, enabled: 'yes'}}",
        "jobs: {a: {shell: x, env: {A-B: 1}}}",
        "jobs: {a: {shell: x, env: {A: {env: X, file: Y}}}}",
        "jobs: {a: {backup: {}}}",
        "jobs: {a: {backup: {source: history, keep: {last: -1}}}}",
        "jobs: {a: {every: 1m, after: {job: a}, shell: x}}",
        "jobs: {a: {after: finish, shell: x}}",
        "jobs: {a: {after: {job: b, when: sometimes}, shell: x}, b: {shell: x}}",
        "jobs: {a: {triggers: [{cron: '* * * * *', every: 1m}], shell: x}}",
        "jobs: {a: {cron: [], shell: x}}",
        "jobs: {a: {cron: '* * * * *', dst: {gap: maybe}, shell: x}}",
        "jobs: {a: {cron: '* * * * *', on_blackout: wait, shell: x}}",
        "jobs: {a: {every: 1m, catch_up_limit: 0, shell: x}}",
        "jobs: {a: {retries: -1, shell: x}}",
        "jobs: {a: {retry_backoff: 0.5, shell: x}}",
        "jobs: {a: {retry_on: [success], shell: x}}",
        "jobs: {a: {retry_on: [256], shell: x}}",
        "jobs: {a: {retry_on: [], shell: x}}",
        "jobs: {a: {only_if: {load1_above: 4}, shell: x}}",
        "jobs: {a: {priority: 101, shell: x}}",
        "jobs: {a: {max_instances: 0, shell: x}}",
        "jobs: {a: {mutex: [1, '']}}",
        "pools: {db: 0}",
        "pools: {db: {}}",
        "calendars: {a b: x}",
        "seats: 0",
        "api: {listen: here}",
        "api: {peers: [{user: x}]}",
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(tmp_path, text):
    assert mistakes(tmp_path, text)

    assert list(SCHEMA.iter_errors(yaml.safe_load(text)))


POOLS = """\
pools: {db: 2}
jobs:
  a: {shell: x, pool: dbs}
  b: {shell: x, uses: {db: 3}}
"""


def test_a_pool_that_is_not_there_or_too_small_is_a_mistake_in_its_place(tmp_path):
    assert mistakes(tmp_path, POOLS) == [
        "3:17: jobs.a.pool: there is no pool 'dbs' (did you mean 'db'?): expected one of db",
        "4:24: jobs.b.uses.db: 3 of pool 'db' can never be had: it has 2",
    ]


def test_how_a_job_is_run_may_stand_in_the_defaults(tmp_path):
    text = "defaults: {retries: 2, deadline: 1h, only_if: {load1_below: 4}}\njobs: {a: {shell: x, retries: 0, mutex: m}}"
    job = load(write(tmp_path, text)).jobs["a"]

    assert (job.retries, job.deadline_seconds, job.only_if, job.uses) == (0, 3600.0, {"load1_below": 4.0}, {"mutex m": 1})
    assert (job.retry_on, job.max_instances) == (("failed", "timed_out"), None)


# What a mistake in an included file costs

SKIPPING = """\
include: [jobs.d/*.yaml]
include_errors: skip
jobs:
  main: {shell: x}
  follows: {after: {any: [a, main]}, shell: x}
  drill: {restore_drill: {of: saved}}
"""
GOOD = "jobs: {a: {shell: x}, saved: {backup: {source: history}}}"


@pytest.mark.parametrize(
    "bad", ["jobs: {b: {every: 1x, shell: x}, c: {shell: x}}", "jobs: {b: {", "- b", "jobs: {a: {shell: x}}"]
)
def test_with_include_errors_skip_a_mistake_costs_the_jobs_of_its_file(tmp_path, bad):
    write(tmp_path / "jobs.d", GOOD, "a.yaml")
    second = write(tmp_path / "jobs.d", bad, "b.yaml")
    config = load(write(tmp_path, SKIPPING))

    assert set(config.jobs) == {"main", "follows", "drill", "a", "saved"}
    assert {problem.file for problem in config.skipped} == {second}
    with pytest.raises(ConfigError, match=second):
        load(write(tmp_path, SKIPPING.replace("skip", "refuse")))


@pytest.mark.parametrize("bad", [GOOD + "\nwrong: 1", "jobs: {a: {"])
def test_what_a_file_that_is_left_out_took_along_is_told_and_what_follows_its_jobs_stays(tmp_path, bad):
    first = write(tmp_path / "jobs.d", bad, "a.yaml")
    config = load(write(tmp_path, SKIPPING))

    assert set(config.jobs) == {"main", "follows"}
    assert [problem.file for problem in config.skipped] == [first, str(tmp_path / "c.yaml")]
    assert str(config.skipped[1]).endswith(
        "c.yaml:6:27: jobs.drill.restore_drill.of: the backup job is left out, and so is this drill"
    )


def test_a_mistake_in_the_main_file_is_none_that_is_skipped(tmp_path):
    write(tmp_path / "jobs.d", GOOD, "a.yaml")
    write(tmp_path, "jobs: {}", "jobs.d/b.yaml")
    for wrong in ("  other: {after: {job: nobody}, shell: x}\n", "typo: 1\n", "calendars: {c: nothing.ics}\n"):
        with pytest.raises(ConfigError):
            load(write(tmp_path, SKIPPING + wrong))
