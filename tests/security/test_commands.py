"""S3, S22: a value that an API caller gives is one word, one variable, one bound value, or refused; never an option or code.

What runs is chosen by the configuration alone.
"""

import sqlite3

import pytest

from schedulerd.cli.client import ClientError
from schedulerd.config.loader import load
from schedulerd.core.errors import ConfigError
from tests.support.daemon import RunningDaemon

PARAM = {"params": {"what": {"multiline": True}}}
HOSTILE = "; id\n$(id) `id` | id > x & * ~ $HOME ${IFS} \\n '\" ' OR 1=1 -- :what %s {0} \x1b[2J"
REFUSED = ["a\0b", "-oProxyCommand=id", "--help", "-", "-rf /", "\ud800"]
WAYS = ("word", "variable", "argument", "bound")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    folder.chmod(0o755)
    (folder / "ours.py").write_text("def show(what):\n    print(what, end='')\n")
    sqlite3.connect(folder / "x.db").close()
    statement = {"dsn": f"sqlite://{folder}/x.db", "statement": "SELECT :what AS it"}
    numbers = {"params": {"count": {"type": "integer"}}}
    signed = {"count": {"type": "integer", "minimum": -9}}
    jobs = {
        "word": {"command": ["/usr/bin/printf", "%s", {"param": "what"}], **PARAM},
        "variable": {"shell": 'printf %s "$SCHEDULERD_PARAM_WHAT"', **PARAM},
        "argument": {"python": "ours:show", "python_path": str(folder), **PARAM},
        "bound": {"sql": statement, **PARAM},
        "line": {"command": ["/bin/true", {"param": "what"}], "params": {"what": {}}},
        "fraction": {
            "command": ["/usr/bin/printf", "%s", {"param": "size"}], "params": {"size": {"type": "number"}},
        },
        "number": {"command": ["/usr/bin/printf", "%s", {"param": "count"}], **numbers},
        "signed": {"command": ["/usr/bin/printf", "%s", {"param": "count"}], "params": signed},
    }  # fmt: skip
    made = RunningDaemon(folder, {"jobs": jobs}).start()
    yield made
    made.close()


def written(running, job_id, **params):
    """Return what a run of a job has written."""
    row = running.client.post(f"jobs/{job_id}/trigger", {"params": params}).body
    assert row["status"] == "success", row["message"]
    return running.client.ask("GET", f"/api/v1/scheduler/runs/{row['run_id']}/output").body


@pytest.mark.parametrize("job_id", WAYS)
def test_s22_whatever_a_value_says_it_is_only_a_value(running, job_id):
    found = str(written(running, job_id, what=HOSTILE))

    assert (HOSTILE if job_id != "bound" else HOSTILE.replace("\n", " ")) in found  # a cell of a table is on one line


@pytest.mark.parametrize("job_id", WAYS)
@pytest.mark.parametrize("value", REFUSED, ids=ascii)
def test_s22_what_could_be_an_option_or_ends_a_text_is_422(running, job_id, value):
    with pytest.raises(ClientError) as error:
        running.client.post(f"jobs/{job_id}/trigger", {"params": {"what": value}})
    assert error.value.status == 422


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\n"])
def test_s22_a_text_of_one_line_stays_one(running, value):
    with pytest.raises(ClientError, match="a text of one line"):
        running.client.post("jobs/line/trigger", {"params": {"what": value}})


@pytest.mark.parametrize("value", [-9, "-9"])
def test_s22_a_number_is_no_option_of_a_command_unless_its_minimum_says_so(running, value):
    with pytest.raises(ClientError, match="greater than or equal to 0"):
        running.client.post("jobs/number/trigger", {"params": {"count": value}})
    assert str(written(running, "number", count=9)) == "9"
    assert str(written(running, "signed", count=value)) == "-9"


@pytest.mark.parametrize("value", [-0.0, "-0.0", "-0"], ids=ascii)
def test_s22_a_zero_has_no_sign(running, value):
    assert float(str(written(running, "fraction", size=value))) == 0
    assert "-" not in str(written(running, "fraction", size=value))


@pytest.mark.parametrize("key", ["command", "shell", "env", "user", "cwd", "path", "url", "python_path"])
def test_s3_s22_nobody_gives_a_job_anything_but_its_parameters(running, key):
    with pytest.raises(ClientError, match="Unknown key: expected params") as error:
        running.client.post("jobs/word/trigger", {key: "id", "params": {"what": "x"}})
    assert error.value.status == 422


def test_s22_a_program_cannot_be_a_parameter(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("jobs: {a: {params: {what: {}}, command: [{param: what}]}}")
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="the program cannot be a parameter"):
        load(str(path))


def warnings_of(tmp_path, command):
    path = tmp_path / "c.yaml"
    path.write_text(f"jobs: {{a: {{params: {{what: {{}}}}, command: {command}}}}}")
    path.chmod(0o600)
    return [each.text for each in load(str(path)).warnings if "as a program: whoever" in each.text]


@pytest.mark.parametrize("start", ["[/bin/sh, -c, W]", "[bash, -ec, W]", "[python3, -c, W]", "[perl, -e, W, x]",
                                   "[/usr/bin/env, A=b, W]", "[sudo, -n, W]", "[ssh, host, run, W]"])  # fmt: skip
def test_s22_a_value_that_another_program_would_run_is_warned_of(tmp_path, start):
    assert len(warnings_of(tmp_path, start.replace("W", "{param: what}"))) == 1


@pytest.mark.parametrize("start", ["[/bin/sh, /srv/run, W]", "[/bin/sh, -c, 'echo $1', x, W]", "[sudo, -n, /srv/run, W]",
                                   "[/bin/echo, -c, W]", "[python3, /srv/x.py, W]", "[ssh, W]"])  # fmt: skip
def test_s22_a_value_that_is_an_argument_is_not(tmp_path, start):
    assert warnings_of(tmp_path, start.replace("W", "{param: what}")) == []
