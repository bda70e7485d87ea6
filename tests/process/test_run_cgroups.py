"""A control group for each run, in a real tree. Limits need controllers, which not every machine lets us have."""

import os
import signal
import sys

import pytest

from schedulerd.core.clock import SystemClock
from schedulerd.host import cgroups
from schedulerd.logs import subjects
from schedulerd.process.keeper.run_cgroups import RunCgroups
from schedulerd.process.spec import Cause, Limits
from schedulerd.process.supervisor import Supervisor
from tests.process.test_process import alive, spec
from tests.support.daemon import keepers
from tests.support.groups import make_subtree, remove_subtree
from tests.support.heard import Heard
from tests.support.waiting import until

# Leaves parent, session and environment behind, so that nothing but its group tells whose it is.
ESCAPE = (
    "import os, signal, sys, time\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        code = 'import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);'\n"
    "        code += 'open(%r, \"w\").write(str(os.getpid())); time.sleep(600)' % sys.argv[1]\n"
    "        os.execve(sys.executable, [sys.executable, '-S', '-c', code], {})\n"
    "    os._exit(0)\n"
    "while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():\n"
    "    time.sleep(0.01)\n"
)


@pytest.fixture
def tree(monkeypatch):
    made = make_subtree()
    monkeypatch.setenv(cgroups.VARIABLE, str(made))
    yield made
    remove_subtree(made)


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture
def supervisor(tree, heard, tmp_path):
    made = Supervisor(str(tmp_path / "keeper"), SystemClock(), heard)
    made.recover()
    made.start()
    yield made
    made.close()


def groups_of_runs(tree):
    return [each.name for each in tree.glob("runs-*/*") if each.is_dir()]


def escaping(tmp_path, after="", **changes):
    script, told = tmp_path / "escape.py", tmp_path / "pid"
    script.write_text(ESCAPE)
    return spec(tmp_path, f"{sys.executable} -S {script} {told}; {after}", **changes), told


def test_what_leaves_session_parent_and_environment_is_killed_with_its_run(supervisor, heard, tree, tmp_path):
    made, told = escaping(tmp_path)
    supervisor.launch("r", made)

    assert heard.ends.get(timeout=20).exit_code == 0
    assert not alive(int(told.read_text()))
    assert groups_of_runs(tree) == []


def test_a_cancelled_run_ends_with_all_that_it_started(supervisor, heard, tree, tmp_path):
    made, told = escaping(tmp_path, "sleep 600", kill_grace_seconds=0.3)
    supervisor.launch("r", made)
    until(lambda: told.exists() and told.read_text(), "the one that escapes")
    assert groups_of_runs(tree) == ["r"]
    supervisor.end("r", Cause.CANCEL)

    end = heard.ends.get(timeout=20)
    assert (end.exit_code, end.cause) == (-signal.SIGTERM, Cause.CANCEL)
    assert not alive(int(told.read_text()))
    assert groups_of_runs(tree) == []


def test_the_processor_time_is_that_of_the_whole_run(supervisor, heard, tmp_path):
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    waiting = f"while [ ! -e {tmp_path}/done ]; do sleep 0.05; done"
    supervisor.launch(
        "r", spec(tmp_path, f"(setsid sh -c \"{sys.executable} -S -c '{burn}'; touch {tmp_path}/done\" &) ; {waiting}")
    )

    assert heard.ends.get(timeout=20).cpu_seconds >= 0.3


def test_what_is_kept_running_keeps_its_group(supervisor, heard, tree, tmp_path):
    supervisor.launch("r", spec(tmp_path, "sleep 600 & echo $!", keeps_leftovers=True))
    heard.ends.get(timeout=20)

    assert alive(int((tmp_path / "out").read_text()))
    assert groups_of_runs(tree) == ["r"]
    supervisor.forget(["r"])


def test_a_keeper_that_takes_over_finds_the_groups_of_its_runs(supervisor, heard, tree, tmp_path):
    made, told = escaping(tmp_path, "sleep 600", kill_grace_seconds=0.3)
    supervisor.launch("r", made)
    until(lambda: told.exists() and told.read_text(), "the one that escapes")
    for pid in keepers(tmp_path):
        os.kill(pid, signal.SIGKILL)
    supervisor.end("r", Cause.CANCEL)  # the keeper that hears it may be dead before it obeys

    assert heard.ends.get(timeout=20).run_id == "r"
    assert not alive(int(told.read_text()))
    until(lambda: groups_of_runs(tree) == [], "its group to be removed")


def test_limits_that_no_controller_can_keep_are_told(supervisor, heard, tree, tmp_path):
    if (tree / "cgroup.controllers").read_text().strip():
        pytest.skip("there are controllers here")
    supervisor.launch("r", spec(tmp_path, "true", limits=Limits(of_run={"memory": 10**8, "pids": 5})))

    end = heard.ends.get(timeout=20)
    assert (end.exit_code, end.limits_not_kept) == (0, ("memory", "pids"))


def test_a_run_that_gets_no_group_runs_all_the_same_and_says_that_its_limits_are_not_kept(
    supervisor, heard, tree, tmp_path, caplog
):
    for folder in tree.glob("runs-*"):
        (folder / "cgroup.max.descendants").write_text("0")
    supervisor.launch("r", spec(tmp_path, "true", limits=Limits(of_run={"pids": 5})))

    end = heard.ends.get(timeout=20)
    assert (end.exit_code, end.limits_not_kept) == (0, ("pids",))
    record = next(each for each in caplog.records if "it has no control group of its own" in each.getMessage())
    assert dict(subjects(record)) == {"RUN_ID": "r"}


def test_groups_that_an_earlier_keeper_left_empty_are_removed(tree):
    first = RunCgroups("0")
    for run_id in ("known", "forgotten"):
        first.make(run_id, {})
    RunCgroups("0").remove_others({"known": {}})

    assert groups_of_runs(tree) == ["known"]


def test_without_a_subtree_there_are_no_groups(monkeypatch, tmp_path):
    monkeypatch.setenv(cgroups.VARIABLE, str(tmp_path))
    none = RunCgroups("0")

    assert (none.available, none.make("r", {}), none.members("r"), none.is_populated("r")) == (False, None, set(), None)
    assert none.unenforced("r", {"memory": 1, "cpus": 1}) == ["cpus", "memory"]
    none.kill("r")
    none.remove("r")
    assert cgroups.enforceable_limits() == frozenset()
