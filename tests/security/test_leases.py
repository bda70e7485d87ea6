"""S29, S12: a lease on its output (fcntl(2)), which its user can take, hides nothing else of a run, and is told."""

import json

from schedulerd.cli.client import PREFIX

SECRET = "sesame-of-the-job"
# It hands its output to a process that outlives it and has a lease on it: nobody can open it then.
LEASES = """
import fcntl, json, os, sys, time
output = os.open("/proc/self/fd/1", os.O_RDWR)
null = os.open("/dev/null", os.O_RDWR)
os.dup2(null, 1)
os.dup2(null, 2)
os.write(output, b"x" * 40000)
with open(os.environ["SCHEDULERD_RESULT_FILE"], "w") as file:
    json.dump({"message": os.environ["PASSWORD"]}, file)
fcntl.fcntl(output, fcntl.F_SETLEASE, fcntl.F_WRLCK)
if os.fork():
    os._exit(1)
while os.path.exists(sys.argv[1]):
    time.sleep(0.01)
"""


def test_s29_a_lease_on_an_output_is_told_and_unmasks_nothing(daemon, tmp_path):
    flag, secret = tmp_path / "flag", tmp_path / "secret"
    flag.touch()
    secret.write_text(SECRET)
    secret.chmod(0o600)
    job = {"command": ["/usr/bin/python3", "-c", LEASES, str(flag)], "leftovers": "keep", "output_limit": "4k"}
    running = daemon({"leases": {**job, "env": {"PASSWORD": {"file": str(secret)}}}}).start()
    try:
        run = running.client.post("jobs/leases/trigger").body
        path = f"{PREFIX}/runs/{run['run_id']}"
        told = running.client.ask("GET", path).body
        output = running.client.ask("GET", f"{path}/output")
    finally:
        flag.unlink()

    assert told["status"] == "failed"
    assert told["output_bytes"] == 40000
    assert "lease" in str(output.body)
    assert output.status == 409
    assert SECRET not in json.dumps([run, told, str(output.body)]) + running.log()
