"""The actions `python`, `http` and `sql`, whose processes are programs of schedulerd (see `programs/`).

A program reads its order as JSON from standard input, where no other user can read it. Arguments and environment contain no
secrets.
"""

from __future__ import annotations

import json
import os
import re
import sys
from base64 import b64encode
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import unquote

from .. import ROOT
from ..config.settings_actions import POSTGRESQL, SQLITE
from ..core.errors import StartError
from ..core.models import Job, Run, Secret
from ..host.files import read_text
from ..host.trust import trusted, why_untrusted
from ..process.spec import ProcessSpec
from ..secrets.forms import SHORTEST_MASKED_OF_FILE
from ..secrets.references import resolve, resolve_to_mask
from ..secrets.urls import parts_of, passwords_in
from .command import find_program
from .environment import environment, spec_of, users_of, values_of

PROGRAMS = os.path.join(ROOT, "schedulerd", "actions", "programs")
STATEMENT_LIMIT = 1024 * 1024  # bytes


def prepare_python(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process spec of a `python` job: `actions/programs/call.py`, executed by the job's interpreter."""
    options = job.options
    for folder in job.python_path:
        check_trusted("python_path", folder, job)
    order = {
        "call": options["call"],
        "args": list(options["args"]),
        "kwargs": {**options["kwargs"], **values_of(job, run)},
        "path": list(job.python_path),
    }
    env = environment(job, run, output_path)
    interpreter = find_program(job.interpreter or sys.executable, env["PATH"], None)
    argv = [interpreter, "-u", os.path.join(PROGRAMS, "call.py")]
    return spec_of(job, argv, env, output_path, _bytes(order))


def check_trusted(setting: str, path: str, job: Job) -> None:
    """Raise StartError when other users may change a file or folder that determines what a job runs. It may be absent."""
    try:
        why = why_untrusted(path, trusted(users_of(job)))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartError(f"cannot check the {setting} {path}: {error.strerror}") from error
    if why is not None:
        raise StartError(f"the {setting} {path} is not used: {why}")


def prepare_http(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process spec of an `http` job. Raise SecretError, or StartError for an invalid header value."""
    options = job.options
    own = users_of(job)
    headers = {name: resolve(value, own) for name, value in options["headers"].items()}
    for name, value in headers.items():
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            raise StartError(
                f"the value of the header {name} contains characters that are not allowed, such as a line break"
            )
    url, body = resolve(options["url"], own), options["body"]
    order = {
        **{name: options[name] for name in ("method", "expect_text", "expect_json", "verify", "follow_redirects")},
        "url": url,
        "headers": headers,
        "body": json.dumps(options["json"]) if options["json"] is not None else body and resolve(body, own),
        "is_json": options["json"] is not None,
        "expect_status": list(options["expect_status"]),
        "timeout": options["response_timeout"] or None,
        "hidden": _hidden(options, url),
    }
    return own_program("http_request", job, run, output_path, order)


def _hidden(options: Mapping[str, Any], url: str) -> list[str]:
    """Return the secrets, and parts of them, that an HTTP request must not repeat from a response."""
    hidden = [resolve_to_mask(value) for value in (options["url"], options["body"]) if isinstance(value, Secret)]
    for header in (resolve_to_mask(value) for value in options["headers"].values() if isinstance(value, Secret)):
        hidden += [header, *(word for word in header.split() if len(word) >= SHORTEST_MASKED_OF_FILE)]
    hidden += parts_of(url) if isinstance(options["url"], Secret) else passwords_in(url)
    userinfo = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    return [*hidden, b64encode(unquote(userinfo).encode()).decode()] if userinfo else hidden


def prepare_sql(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process spec of an `sql` job. Raise SecretError or StartError."""
    options = job.options
    url = resolve(options["dsn"], users_of(job))
    if not url.startswith((*SQLITE, *POSTGRESQL)):
        raise StartError("the secret is not a sqlite:// or postgresql:// URL")
    order = {
        "url": url,
        "statement": options["statement"] if options["file"] is None else _statement(options["file"], users_of(job)),
        "params": values_of(job, run),
        "timeout": options["statement_timeout"] or None,
    }
    return own_program("sql_statement", job, run, output_path, order)


def _statement(path: str, also: Collection[int]) -> str:
    try:
        return read_text(path, STATEMENT_LIMIT, trusted(also))
    except FileNotFoundError:
        raise StartError(f"file {path} does not exist") from None
    except ValueError as error:
        raise StartError(f"cannot read the file {path}: {error}") from None


def own_program(name: str, job: Job, run: Run, output_path: str, order: Mapping[str, Any]) -> ProcessSpec:
    """Return the process spec of `actions/programs/NAME.py`, which reads `order` from standard input."""
    env = environment(job, run, output_path) | {"PYTHONPATH": ROOT}
    argv = [sys.executable, "-P", "-m", f"schedulerd.actions.programs.{name}"]
    return spec_of(job, argv, env, output_path, _bytes(order))


def _bytes(order: Mapping[str, Any]) -> bytes:
    return json.dumps(order).encode()
