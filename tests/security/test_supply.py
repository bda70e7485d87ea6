"""S38, S40: what is installed with pip is pinned, listed and asked about; who finds a hole knows where to go."""

import json
import re
import runpy
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = runpy.run_path(str(PACKAGING / "pinned.py"))
PINS = {pin.name: pin for name in ("RUNTIME", "BUILD") for pin in PINNED["read"](PINNED[name])}
EXTRAS = ("postgresql", "redis", "calendars")


def test_s38_each_version_has_hashes_and_no_list_names_where_it_was_fetched():
    assert [pin.name for pin in PINS.values() if not pin.hashes] == []
    for name in ("pinned.txt", "pinned-build.txt"):
        text = (PACKAGING / name).read_text()
        assert not re.search(r"//|^\s*-(?!-hash)|/work|/home|/tmp", text, re.MULTILINE), name


def test_s38_a_list_with_anything_else_in_it_is_refused(tmp_path):
    path = tmp_path / "pinned.txt"
    path.write_text(f"--index-url https://index.example/\naiohttp==1 \\\n    --hash=sha256:{'0' * 64}\n")

    with pytest.raises(ValueError, match=r"pinned\.txt:1: neither"):
        PINNED["read"](path)


def test_s38_what_the_project_asks_for_is_pinned_to_a_version_that_it_takes():
    asked = [*PROJECT["dependencies"], *(each for extra in EXTRAS for each in PROJECT["optional-dependencies"][extra])]
    for each in map(Requirement, asked):
        assert each.specifier.contains(PINS[each.name.lower()].version), each
    assert Requirement("aiohttp>=3.13.3").specifier.contains(PINS["aiohttp"].version)


def run(name, *words):
    return subprocess.run([sys.executable, PACKAGING / name, *words], capture_output=True, text=True, check=False)


def test_s38_the_bill_of_materials_lists_all_that_is_pinned_and_is_the_same_each_time():
    text = run("sbom.py").stdout
    bill = json.loads(text)
    known = {each["bom-ref"] for each in bill["components"]}
    needs = {each["ref"]: set(each["dependsOn"]) for each in bill["dependencies"]}

    assert {(each["name"], each["version"]) for each in bill["components"]} == {(p.name, p.version) for p in PINS.values()}
    assert set().union(*needs.values()) <= known
    assert {ref.partition("@")[0].rpartition("/")[2] for ref in needs[f"pkg:pypi/schedulerd@{PROJECT['version']}"]} >= {
        "aiohttp",
        "psycopg",
        "sdnotify",
    }
    assert run("sbom.py").stdout == text


@pytest.fixture
def osv():
    """A server that answers as OSV does; `answer` is what it says of a name and version, or a text for all."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            said = self.server.answer
            if isinstance(said, dict):
                said = json.dumps({"results": [said.get((q["package"]["name"], q["version"]), {}) for q in asked]})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}/"
        server.answer = {}
        yield server
        server.shutdown()
        thread.join()


def test_s38_a_known_vulnerability_fails_until_it_is_accepted_with_a_reason(osv, tmp_path):
    osv.answer = {("aiohttp", PINS["aiohttp"].version): {"vulns": [{"id": "GHSA-1"}, {"id": "GHSA-2"}]}}
    accepted = tmp_path / "accepted"
    accepted.write_text("GHSA-1 only the client is concerned\n")
    found = run("audit.py", "--url", osv.url)
    half = run("audit.py", "--url", osv.url, "--accepted", accepted)
    accepted.write_text("# looked at\nGHSA-1 only the client\nGHSA-2 only on Windows\n")

    assert (found.returncode, half.returncode) == (1, 1)
    assert f"aiohttp {PINS['aiohttp'].version}: GHSA-2" in found.stdout
    assert run("audit.py", "--url", osv.url, "--accepted", accepted).returncode == 0
    accepted.write_text("GHSA-1\n")
    assert "needs a reason" in run("audit.py", "--url", osv.url, "--accepted", accepted).stderr


def test_s38_without_vulnerabilities_all_is_well(osv):
    done = run("audit.py", "--url", osv.url)

    assert (done.returncode, done.stdout) == (0, f"audit: {len(PINS)} versions, 0 known vulnerabilities, 0 accepted ones\n")


@pytest.mark.parametrize("answer", ["<html>log in first</html>", "{}", '{"results": [{}]}', '{"results": [1]}'])
def test_s38_an_answer_that_is_none_is_not_taken_for_all_well(osv, answer):
    osv.answer = answer
    done = run("audit.py", "--url", osv.url)

    assert done.returncode == 75
    assert "NOT DONE: OSV could not be asked" in done.stderr


def test_s38_without_a_network_it_says_that_nothing_is_known():
    done = run("audit.py", "--url", "http://127.0.0.1:1/")

    assert done.returncode == 75
    assert "nothing is known of these versions" in done.stderr


def test_s40_who_finds_a_hole_is_told_where_to_go_and_what_is_supported():
    text = (ROOT / "SECURITY.md").read_text()

    assert [word for word in ("Supported versions", "Report a vulnerability", "docs/security.md") if word not in text] == []
    for path in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / path).exists(), path
