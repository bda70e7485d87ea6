"""S18, S25, S28: what stands in a path, a query, a header or a body is a value: it is refused, and tells nothing of us."""

import ast
import http.client
import json
import os
import re
import socket
from pathlib import Path
from urllib.parse import quote, unquote

import pytest

import schedulerd
from schedulerd.api.responses import PREFIX
from schedulerd.api.routes import ROUTES
from schedulerd.cli.client import Client
from schedulerd.config.settings_jobs import JOB_ID
from schedulerd.core.models import Role
from tests.support.daemon import RunningDaemon

INSIDES = re.compile(
    r"Traceback|/usr/|/tmp/|/etc/|\.py\b|postgres|psycopg|sqlite|select|no such (?:table|column)", re.IGNORECASE
)
JOBS = {"good": {"shell": "echo hello", "params": {"p": {}}}, "keep": {"backup": {"source": "history"}}}
IDS = [  # encoded as they are sent
    "..%2fx", "%2e%2e%2f", "%252e", "%252e%252e%252f", "..%5Cx", "%2e", "%2e%2e", "CON", "a%00b", "%c0%ae%c0%ae%2f",
    "%", "%%",
    *(quote(each, safe="") for each in [
        "../x", "../../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "C:\\x", "\\\\x\\y", "good/../good",
        "good/", "中", "é", "e\u0301", "\u202egood", "\ufeffgood", "good\u200b", "😀", "٣", "a" * 65, "a" * 4000, " ",
        " good", "good ", "a b", "a\nb", "a\r\nX: y", "\x1b[2J", "\x7f", "\x85", "*", "?", "#", "_", ".x", "-x",
        "--help", "GOOD", "%n%s", "{x.__class__}", "${jndi:ldap://x}", "{{7*7}}", "$(id)", "`id`", "; id", "| id",
        "&& id", "history.db", "NaN", "null", "[]", "1e999", "%zz",
    ]),
]  # fmt: skip
SQL = [
    "' OR '1'='1", "1' OR 1=1--", "1 OR 1=1", "1; DROP TABLE runs;--", '" OR ""="', "') UNION SELECT 1,2,3--",
    "admin'--", "1/**/OR/**/1=1", "1 UNION SELECT sql FROM sqlite_master", "1 UNION SELECT usename FROM pg_shadow",
    "1 AND SLEEP(5)", "'||(SELECT version())||'", "%' ESCAPE '", "'; ATTACH 'x' AS y;--", "1;SELECT pg_sleep(5)",
    "'||pg_sleep(5)--", "1) ORDER BY 99--", "started_at DESC; --", "' AND extractvalue(1,1)--",
    "1 AND 1=CAST((SELECT 1) AS int)", "\\' OR 1=1--", "%27%20OR%201=1--", "0x31'", "1e0'", "CHAR(49)", "$1",
    ":run_id", "?1", "%(run_id)s", "\x00' OR 1--",
]  # fmt: skip
QUERIES = {
    "jobs/good/history": ("limit", "before", "status"), "jobs/good/next": ("count", "after"), "jobs/good/why": ("at",),
    "simulate": ("from", "to"), "runs": ("limit", "before", "status", "job"), "health": ("refresh",),
    "backups": ("job", "limit"), "health/history": ("job", "limit", "before"), "stats": ("days", "job"),
}  # fmt: skip


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    made = RunningDaemon(tmp_path_factory.mktemp("inputs"), {"jobs": JOBS, "api": {"listen": "127.0.0.1:0"}})
    made.start()
    yield made
    assert "Traceback" not in made.log()
    made.close()


class Connection(http.client.HTTPConnection):
    """One connection to the Unix socket, since each test has many requests."""

    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)

    def ask(self, method, path, body=None, **headers):
        self.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            self.putheader(name.replace("_", "-"), value)
        self.putheader("Content-Length", str(len(body or b"")))
        self.endheaders(body)
        answer = self.getresponse()
        return answer.status, answer.read().decode()


@pytest.fixture
def ask(running):
    """Return what asks as an admin; no answer that is an error tells of our insides."""
    connection = Connection(str(running.socket_path))

    def to(*asked, **headers):
        status, body = connection.ask(*asked, **headers)
        assert status < 500, asked
        if status >= 400:
            said = unquote(" ".join(map(str, asked))).lower()  # which may be repeated
            assert set(json.loads(body)) == {"detail"}
            assert [each for each in INSIDES.findall(body) if each.lower() not in said] == [], (asked, body)
        return status

    yield to
    connection.close()


def tree(folder):
    return sorted(str(path) for path in folder.rglob("*") if "/state/output/" not in str(path))


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "{" in route.path], ids=lambda route: f"{route.method} {route.path}"
)
def test_s25_an_id_in_a_path_is_a_name_or_404(ask, running, route):
    before = tree(running.folder)
    found = {each: ask(route.method, re.sub(r"\{\w+\}", lambda _, each=each: each, route.path)) for each in IDS}

    assert {each: status for each, status in found.items() if status not in (400, 404)} == {}
    assert tree(running.folder) == before


@pytest.mark.parametrize("path", QUERIES)
def test_s25_s28_what_is_in_a_query_is_a_value(ask, path):
    for name in QUERIES[path]:
        texts = [each for each in (*IDS, *map(quote, SQL)) if not (name == "job" and re.fullmatch(JOB_ID, each))]
        found = {each: ask("GET", f"{PREFIX}/{path}?{name}={each}") for each in texts}
        assert {each: status for each, status in found.items() if status not in (404, 422)} == {}, name


def test_s28_what_is_in_a_path_is_no_sql(ask):
    for route in ROUTES:
        if "{" in route.path:
            path, end = re.split(r"\{\w+\}", route.path)
            assert {ask(route.method, path + quote(each, safe="") + end) for each in SQL} == {404}


def test_s25_s28_what_is_in_a_body_is_a_value(ask, running):
    def post(verb, body):
        return ask("POST", f"{PREFIX}/jobs/good/{verb}", json.dumps(body).encode(), Content_Type="application/json")

    for text in (*IDS, *SQL):
        for body in ({"params": {text: 1}}, {text: 1}, {"params": text}):
            assert post("trigger?wait=false", body) == 422
        assert post("pause", {"until": text}) == 422
        assert post("pause", {"reason": text}) == (200 if len(text) <= 1000 else 422)
    assert running.job("good")["is_paused"]
    assert ask("POST", f"{PREFIX}/jobs/good/resume") == 200
    assert running.history("good") == []


def test_s18_headers_and_bodies_that_are_rubbish_tell_nothing_of_us(ask):
    rubbish = [
        b"\xff\xfe",
        b"{",
        b"[" * 5000,
        b'"\\ud800"',
        b"\x80abc",
        b"'",
        b"<x>",
        b"%s%n",
        b"1e999",
        b"-",
        b"\x1f\x8b\x08",
        b",;,;",
        b"=?utf-8?x?=",
    ]
    names = (
        "Range",
        "If_None_Match",
        "Idempotency_Key",
        "Content_Type",
        "Content_Encoding",
        "Origin",
        "Sec_Fetch_Site",
        "Accept",
        "Cookie",
    )
    for value in rubbish:
        assert ask("POST", f"{PREFIX}/jobs/good/pause", value, Content_Type="application/json") == 422
        for name in names:
            ask("GET", f"{PREFIX}/jobs", **{name: value})
            ask("POST", f"{PREFIX}/jobs/good/resume", b"{}", **{name: value})


def test_s18_why_the_history_is_away_is_told_to_admins_only(daemon):
    running = daemon(JOBS, api={"listen": "127.0.0.1:0"}).start()
    tokens, state = running.folder / "state" / "tokens.json", running.folder / "state"
    url, text = re.search(r"listening on (http://\S+)", running.log())[1], (state / "admin.token").read_text().strip()
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        os.rename(state / name, running.folder / name)
    told = {}
    for role in ("admin", "operator"):
        tokens.write_text(tokens.read_text().replace('"role": "admin"', f'"role": "{role}"'))
        answer = Client(url=url, token=text, timeout=20).ask("POST", f"{PREFIX}/jobs/good/pause")
        told[role] = answer.body["detail"]
        assert answer.status == 503
    tokens.write_text(tokens.read_text().replace('"role": "operator"', '"role": "viewer"'))
    own = Client(url=url, token=text, timeout=20).get("health")["scheduler"]

    assert own["store"] == "the store cannot be written: see the daemon's log"
    assert str(state / "history.db") in told["admin"]
    assert told["operator"] == "the history cannot be asked or changed now: /readyz says how it is, the daemon's log why"
    assert f"not told to token:admin: the history cannot be written now: {state / 'history.db'}" in running.log()


# What is put into SQL: names of schemas, which the configuration gives (SCHEMA_PATTERN), and numbers and scripts of ours
MADE = {
    "backups/postgresql.py": {"schema", "of_schema"},
    "store/postgres/connection.py": {"self.schema", "round(statement_seconds * 1000)", "round(lock_seconds * 1000)"},
    "store/postgres/status.py": {"schema"},
    "store/postgres/schema.py": {"schema", "access.schema", "connection.info.dbname", "encoding"},
    "store/sqlite/open.py": {"pragma", "script", "number"},
    "store/sqlite/apply.py": {"version"},
}
STATEMENT = re.compile(
    r"\b(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|PRAGMA|VACUUM|SET LOCAL|ATTACH|WHERE|ORDER BY|VALUES)\b"
)


def _made_texts(path):
    """Yield the texts that are put together in a file, each with what is put into it."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.JoinedStr(values=values):
                text = "".join(each.value for each in values if isinstance(each, ast.Constant))
                yield text, {ast.unparse(each.value) for each in values if isinstance(each, ast.FormattedValue)}
            case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod() | ast.Add(), right=other):
                yield text, {ast.unparse(other)}
            case ast.BinOp(left=other, op=ast.Add(), right=ast.Constant(value=str(text))):
                yield text, {ast.unparse(other)}
            case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
                yield text, {ast.unparse(node)}


def test_s28_nothing_but_names_of_ours_is_put_into_sql():
    package, found = Path(schedulerd.__file__).parent, {}
    for path in (each for each in package.rglob("*.py") if STATEMENT.search(each.read_text())):
        for text, parts in _made_texts(path):
            if STATEMENT.search(text) and parts:
                found.setdefault(str(path.relative_to(package)), set()).update(parts)

    assert found == MADE


def test_s28_no_route_orders_or_filters_by_a_name_that_a_caller_gives():
    for route in ROUTES:
        assert isinstance(route.role, Role)
        assert not re.search(r"sort|order|column|fields|filter", route.path)
