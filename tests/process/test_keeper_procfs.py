"""Who belongs to a run is read from the kernel's table of processes, and a number that was given away tells nothing."""

from schedulerd.process.keeper.procfs import Process, family

LEADER = 100


def a_process(pid, parent=1, group=None, session=None):
    """Return a process as /proc/PID/stat would tell it; it leads its group and session unless they are given."""
    fields = f"S {parent} {group or pid} {session or pid}" + " 0" * 15 + " 7"
    return Process(pid, f"{pid} (a name) with ) in it) {fields}".encode())


def pids(has_ended, processes, adopted=()):
    return sorted(each.pid for each in family(LEADER, has_ended, processes, adopted))


def test_a_run_is_its_leader_its_session_its_group_and_all_that_descend_of_them():
    processes = [
        a_process(LEADER), a_process(101, group=LEADER, session=LEADER), a_process(102, session=LEADER),
        a_process(103, parent=102), a_process(104, parent=103), a_process(200),
    ]  # fmt: skip

    assert pids(False, processes) == [100, 101, 102, 103, 104]


def test_what_a_leader_that_ended_left_in_its_session_is_still_of_the_run():
    assert pids(True, [a_process(101, session=LEADER), a_process(102, group=LEADER), a_process(200)]) == [101, 102]


def test_a_stranger_that_was_given_the_number_of_a_leader_that_ended_is_let_be():
    survivor = a_process(300)
    stranger, its_child = a_process(LEADER), a_process(101, parent=LEADER, group=LEADER, session=LEADER)

    assert pids(True, [survivor, stranger, its_child], adopted={300}) == [300]
