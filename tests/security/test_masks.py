"""S29: what a job writes about its secrets is masked, in whatever form other programs write them."""

import base64
import json

from schedulerd.cli.client import PREFIX

ODD = "p@ss w/rd'$%\"Tr0ub4dor"
LINES = [base64.b64encode(bytes(range(start, start + 45))).decode() for start in range(0, 90, 7)]
KEY = "\n".join(["-----BEGIN KEY-----", *LINES, "-----END KEY-----", ""])
SCRIPT = r"""
set -e
python3 -c "import json, os; print(json.dumps(dict(os.environ)))"
python3 -c "import os, urllib.parse as u; print(u.quote(os.environ['ODD']), u.urlencode({'q': os.environ['ODD']}))"
printf '%s' "user:$ODD" | base64
base64 "$FILE"
cat "$FILE"
head -4 "$FILE"
bash -c 'printf "%q\n" "$ODD"; set -x; : "$ODD"'
echo "{\"message\": \"sent $(sed -n 4p "$FILE") as $(printf '%s' "$ODD" | base64)\"}" > "$SCHEDULERD_RESULT_FILE"
exit 3
"""
PIECES = ["Tr0ub4dor", "p@ss", "p%40ss", *(line[4:24] for line in LINES)]


def test_s29_no_form_of_a_secret_is_in_an_output_an_error_or_the_log(daemon, tmp_path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "odd").write_text(ODD + "\n\n")
    env = {name: {"file": str(tmp_path / name.lower())} for name in ("KEY", "ODD")}
    running = daemon({"tell": {"shell": SCRIPT, "env": {**env, "FILE": str(tmp_path / "key")}}})
    running.start()
    result = running.client.post("jobs/tell/trigger").body["result"]
    output = running.client.ask("GET", f"{PREFIX}/runs/{result['run_id']}/output").body
    told = {"output": output, "result": json.dumps(result), "log": running.log()}

    assert "sent *** as ***" in result["error_message"]
    assert "-----BEGIN KEY-----\n***" in output
    assert [(name, piece) for name, text in told.items() for piece in PIECES if piece in text] == []


def test_s29_nothing_shows_at_the_borders_of_the_pieces_in_which_an_output_is_read(daemon, tmp_path):
    (tmp_path / "key").write_text(KEY)
    lines = "\\n".join(["x" * (65536 - 7), *LINES])
    job = {"shell": f"printf '{lines}'", "env": {"KEY": {"file": str(tmp_path / "key")}}}
    running = daemon({"tell": job})
    running.start()
    run_id = running.client.post("jobs/tell/trigger").body["result"]["run_id"]
    output = running.client.ask("GET", f"{PREFIX}/runs/{run_id}/output").body

    assert output.strip("x") == "\n" + "\n".join("*" * len(line) for line in LINES)
