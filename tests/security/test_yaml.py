"""S20: a hostile YAML file is refused within a second and 50 MB, before anything of it is kept; errors stay short."""

import json
import subprocess
import sys
import time

import pytest

from schedulerd.config import files
from schedulerd.config.files import LARGEST_FILE, Files
from schedulerd.config.loader import load
from schedulerd.config.settings import TOP
from schedulerd.config.settings_jobs import JOB
from schedulerd.config.yaml import DEEPEST, MOST_MISTAKES, MOST_VALUES, Document
from schedulerd.core.errors import LONGEST_QUOTE, ConfigError, Problem, brief

MOST_SECONDS, MOST_MEGABYTES = 1, 50
LONG = "xY" * 200_000

# What a program of its own reads, so that its peak of memory and its time are those of one reading
READING = """
import json, resource, sys, time
from schedulerd.config.loader import load
from schedulerd.core.errors import ConfigError
usage = lambda: resource.getrusage(resource.RUSAGE_SELF)
before = usage()
try:
    load(sys.argv[1])
    text = None
except ConfigError as error:
    text = str(error)
after = usage()
seconds, kilobytes = after.ru_utime - before.ru_utime, after.ru_maxrss - before.ru_maxrss
kept = {}
for number in range(1_000_000):
    kept[number & 1023] = (number,)
seconds /= max(1, (usage().ru_utime - after.ru_utime) / 0.07)  # which this takes where nobody else is at work
print(json.dumps({"text": text, "seconds": seconds, "megabytes": kilobytes / 1024}))
"""


def billion_laughs():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    return "\n".join(lines).encode()


BOMBS = {
    "9^9 aliases": (billion_laughs, "values"),
    "5,000 nested": (lambda: b"jobs: " + b"[" * 5000 + b"]" * 5000, f"deeper than {DEEPEST}"),
    "5,000 nested in a large file": (lambda: b"a: [" + b"1, " * 200_000 + b"[" * 5000, f"deeper than {DEEPEST}"),
    "an alias of itself": (lambda: b"jobs: &a [*a]", f"deeper than {DEEPEST}"),
    "15 MB of a list": (lambda: b"[" + b"x," * 7_500_000 + b"x]", "larger than 4 MiB"),
    "4 MB of a list": (lambda: b"[" + b"x," * 2_000_000 + b"x]", "values"),
    "4 MB of empty lists": (lambda: b"[" + b"[]," * 1_300_000 + b"x]", "values"),
    "1.2 MB of a mapping": (lambda: b"{" + b", ".join(b"a%d: 1" % number for number in range(110_000)) + b"}", "unknown"),
    "duplicate keys": (lambda: b"{" + b"a: 1, " * 200_000 + b"a: 1}", "values"),
    "fewer duplicate keys": (lambda: b"{" + b"a: 1, " * 50_000 + b"a: 1}", "duplicate"),
    "unknown keys": (lambda: b"\n".join(b"stone%d: 1" % number for number in range(50_000)), "unknown"),
    "unknown keys of a job": (
        lambda: b"jobs: {a: {" + b", ".join(b"shall%d: 1" % number for number in range(50_000)) + b"}}",
        "unknown",
    ),
    "pairs in a list": (lambda: b"[" + b"? a," * 900_000 + b"x]", "values"),
    "anchors": (lambda: b"[" + b", ".join(b"&a%d x" % number for number in range(250_000)) + b"]", "expected a mapping"),
    "documents": (lambda: b"--- a\n" * 600_000, "values"),
    "one scalar of 10 MB": (lambda: b"jobs: " + b"x" * 10_000_000, "larger than 4 MiB"),
    "one scalar of 4 MB": (lambda: b"store: " + b"x" * 4_000_000, "store"),
    "one key of 4 MB": (lambda: b"? " + b"x" * 4_000_000 + b"\n: 1", "a key of 4000000 characters is unknown"),
    "a tag of 1 MB": (lambda: b"jobs: !" + b"x" * 1_000_000 + b" 1", "tag"),
    "an alias of 1 MB": (lambda: b"jobs: *" + b"x" * 1_000_000, "not YAML"),
    "NUL": (lambda: b"jobs: \0{}", "not YAML"),
    "invalid UTF-8": (lambda: b"jobs: \xff\xfe{}", "not YAML"),
    "a Python object": (lambda: b"jobs: !!python/object/apply:os.system [id]", "is not allowed"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon_with_little_memory_and_a_short_error(name, tmp_path):
    made, expected = BOMBS[name]
    path = tmp_path / "config.yaml"
    path.write_bytes(made())
    path.chmod(0o600)

    out = subprocess.run([sys.executable, "-c", READING, str(path)], capture_output=True, text=True, check=True).stdout
    found = json.loads(out)

    assert expected in found["text"]
    assert found["seconds"] <= MOST_SECONDS
    assert found["megabytes"] <= MOST_MEGABYTES
    lines = found["text"].splitlines()
    assert len(lines) <= MOST_MISTAKES + 1
    assert max(map(len, lines)) <= 1000


def test_a_byte_order_mark_is_no_part_of_the_first_key():
    assert Document("f", b"\xef\xbb\xbfjobs: {}\n").value == {"jobs": {}}


@pytest.mark.parametrize("repeated", ["[x, {a}]", "{a, b}", "[? a, ? b]", "[a: b]", "\n- - a\n- ? b\n- c: d", "*a", "[[]]"])
def test_the_quick_look_never_takes_a_file_for_smaller_than_it_is(repeated):
    data = f"a: &a 1\nb: {repeated}\n".encode()
    count = Document("f", data).count

    with pytest.raises(ConfigError, match="values"):
        Document("f", data, count - 1)
    assert Document("f", data, count).count == count


def test_a_file_of_10_000_jobs_is_read_in_one_pass(monkeypatch):
    monkeypatch.setattr("schedulerd.config.yaml._count", lambda *_: pytest.fail("the events are counted first"))
    job = '  job-{0}:\n    every: 5m\n    command: [echo, "{0}"]\n    description: a job\n    timeout: 60s\n'
    text = "jobs:\n" + "".join(map(job.format, range(10_000)))

    assert len(Document("f", text.encode()).value["jobs"]) == 10_000


def test_a_large_honest_file_with_much_text_is_read():
    text = "jobs:\n" + "".join(f"  j{number}: {{shell: 'a, b: - c? [d] {{e}} {'f, ' * 90}'}}\n" for number in range(10_000))
    assert LARGEST_FILE * 0.7 < len(text) < LARGEST_FILE

    assert Document("f", text.encode()).count < MOST_VALUES


def including(folder, texts):
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
        (folder / f"{number}.yaml").chmod(0o600)
    path = folder / "config"
    path.write_text(f"state_dir: {folder}\ninclude: ['*.yaml']\n")
    path.chmod(0o600)
    return str(path)


def test_all_included_files_together_have_a_limit_of_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_SUM", 2 * 1024 * 1024)
    path = including(tmp_path, ["#" * 900_000] * 3)

    with pytest.raises(ConfigError, match=r"/2\.yaml:1:1: is, together with the files before it, larger than 2 MiB"):
        load(path)


def test_all_included_files_together_have_a_limit_of_values(tmp_path, monkeypatch):
    monkeypatch.setattr("schedulerd.config.loader.MOST_VALUES_OF_ALL", 1000)
    path = including(tmp_path, [f"jobs: {{j{file}: {{command: [{'a, ' * 400}b]}}}}" for file in range(3)])

    with pytest.raises(ConfigError, match=r"/2\.yaml:1:[0-9]+: .*values in all files together"):
        load(path)


def test_a_file_with_too_many_mistakes_is_left_out_as_any_other_with_mistakes(tmp_path):
    bad = "jobs: {bad: {" + ", ".join(f"a{number}: 1" for number in range(500)) + "}}"
    path = including(tmp_path, [bad, "jobs: {good: {shell: 'true'}}"])
    (tmp_path / "config").write_text((tmp_path / "config").read_text() + "include_errors: skip\n")

    config = load(path)

    assert list(config.jobs) == ["good"]
    assert str(config.skipped[-1]).endswith(f"more than {MOST_MISTAKES} mistakes: correct the first ones")


def in_every_place():
    """Yield files with a long value at each key of the configuration and of a job, in several forms."""
    for value in (f'"{LONG}"', f"[{LONG}]", f"{{{LONG}: {LONG}}}", f'"{"long words " * 40_000}"'):
        for key in TOP:
            if key != "state_dir":
                yield key, f"{key}: {value}"
        for key in JOB:
            yield f"jobs.a.{key}", f"jobs:\n  a:\n    {key}: {value}"
        yield "defaults", f"defaults:\n  env: {value}"
        yield "a job's name", f"jobs:\n  ? {value}\n  : {{shell: 'true'}}"


def test_no_error_quotes_more_than_200_characters_of_a_value(tmp_path):
    path = tmp_path / "config.yaml"
    path.touch(0o600)
    for where, text in in_every_place():
        path.write_text(text + "\n")
        started = time.process_time()
        try:
            told = load(str(path)).warnings
        except ConfigError as error:
            told = error.problems
        assert time.process_time() - started <= 2 * MOST_SECONDS, where
        for line in map(str, told):
            assert LONG[: LONGEST_QUOTE + 1] not in line, where
            assert ("long words " * 20)[: LONGEST_QUOTE + 1] not in line, where
            assert len(line) <= 2000, where


@pytest.mark.parametrize("quoted", ["'{}'", '"{}"', "{}"])
def test_the_text_around_a_long_value_stays(quoted):
    text = brief(f"the word {quoted.format('x' * 5000)} is no weekday")

    assert text.startswith("the word ")
    assert text.endswith(" is no weekday")
    assert text.count("x") <= LONGEST_QUOTE


def test_a_problem_is_short_whoever_makes_it():
    assert len(str(Problem("f", 1, 1, "a" * 5000, "b" * 5000))) < 2 * LONGEST_QUOTE + 20


def test_a_file_has_a_limit_of_bytes(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"#" * (LARGEST_FILE + 1))
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        Files().yaml(str(path))
