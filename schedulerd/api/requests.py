"""Reads and checks the values of a request. Each error names the location of the value.

The errors have the format and the `type` values of FastAPI, the framework of the founding API, for the sake of its callers.
"""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from ..config.settings_jobs import JOB_ID
from ..core.errors import InvalidError, NotFoundError, SchedulerdError, WrongTypeError
from ..core.models import Status
from ..core.params import echo
from ..core.text import did_you_mean
from ..core.units import parse_duration

LARGEST_LIMIT, DEFAULT_LIMIT = 100, 10
BODY_SECONDS = 30.0
IDEMPOTENCY_KEY = r"[\x21-\x7e]{1,255}"
RUN_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class RangeError(SchedulerdError):
    """The bytes that a Range header requests do not exist; `size` is the number of existing ones."""

    def __init__(self, size: int) -> None:
        super().__init__(f"there are {size} bytes: one range of them can be asked for, such as bytes=0-99")
        self.size = size


def limit_from(text: str | None, name: str = "limit") -> int:
    """Return the number of rows that the query parameter `name` requests."""
    return DEFAULT_LIMIT if text is None else whole_from(text, name, 1, LARGEST_LIMIT)


def whole_from(text: str, name: str, least: int, most: int) -> int:
    """Return the whole number in the query parameter `name`."""
    loc: list[str | int] = ["query", name]
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise InvalidError(loc, "Input should be a valid integer", text, "int_parsing")
    value = int(text)
    if value < least:
        raise InvalidError(loc, f"Input should be greater than or equal to {least}", text, "greater_than_equal")
    if value > most:
        raise InvalidError(loc, f"Input should be less than or equal to {most}", text, "less_than_equal")
    return value


def flag_from(text: str | None, name: str) -> bool:
    """Return the Boolean value of the query parameter `name`, which is false by default."""
    if text not in (None, "true", "false"):
        raise InvalidError(["query", name], "Input should be true or false", text, "bool_parsing")
    return text == "true"


def reason_from(body: dict[str, Any]) -> str | None:
    """Return the reason in a body, or None."""
    reason = body.get("reason")
    if reason is not None and not (isinstance(reason, str) and len(reason) <= 1000):
        loc: list[str | int] = ["body", "reason"]
        raise InvalidError(loc, "Input should be a text of at most 1000 characters", echo(reason), "string_type")
    return reason


def range_from(text: str | None, size: int) -> tuple[int, int] | None:
    """Return the bytes [start, end) of `size` that a Range header requests (RFC 9110, 14.1), None for other units.

    Raise RangeError when the range contains no bytes, or several ranges are requested.
    """
    if text is None or not text.lower().startswith("bytes="):
        return None
    match = re.fullmatch(r"([0-9]{0,18})-([0-9]{0,18})", text[6:].strip(" \t"))
    if match is None or not (match[1] or match[2]):
        raise RangeError(size)
    first, last = match[1], match[2]
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= end:
        raise RangeError(size)
    return start, end


def run_id_of(request: web.Request) -> str:
    """Return the run_id in the path. Raise NotFoundError for a text that cannot be one."""
    run_id = request.match_info["run_id"]
    if not re.fullmatch(RUN_ID, run_id):
        raise NotFoundError(f"there is no run {run_id!r}")
    return run_id


def statuses_from(texts: list[str]) -> list[str] | None:
    """Return the requested statuses (of repeated parameters and of lists separated by commas), or None for all."""
    named = [each for text in texts for each in text.split(",") if each]
    for each in named:
        if each not in list(Status):
            raise InvalidError(["query", "status"], f"Input should be {', '.join(Status)}", each, "enum")
    return named or None


def key_from(request: web.Request) -> str | None:
    """Return the idempotency key, or None."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(IDEMPOTENCY_KEY, key):
        raise InvalidError(["header", "Idempotency-Key"], "Input should be 1 to 255 visible ASCII characters", key)
    return key


def wait_from(text: str | None) -> float | None:
    """Return for how many seconds to wait for the end of a run: None means without limit, 0 not at all."""
    if text in (None, "true"):
        return None
    if text == "false":
        return 0
    try:
        return parse_duration(text)
    except ValueError:
        raise InvalidError(["query", "wait"], "Input should be true, false or a duration such as 30s", text) from None


def run_id_from(text: str | None) -> str | None:
    """Return the run_id before which a page ends, or None."""
    if text is not None and not re.fullmatch(r"[0-9a-f-]{36}", text):
        raise InvalidError(["query", "before"], "Input should be a run_id", text)
    return text


def job_from(text: str | None) -> str | None:
    """Return the job_id of the requested rows, or None. The job may have been removed."""
    if text is not None and not re.fullmatch(JOB_ID, text):
        raise InvalidError(["query", "job"], "Input should be a job_id", text)
    return text


def instant_from(value: Any, *loc: str) -> datetime | None:
    """Return the time, with a zone, in the value at `loc`; None without a value."""
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
        if at.tzinfo is None:
            raise ValueError("no zone")
        return at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        message = "Input should be a time with a zone, such as 2027-01-31T06:00:00Z"
        raise InvalidError([*loc], message, echo(value), "datetime") from None


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


async def json_body(request: web.Request, *known: str) -> dict[str, Any]:
    """Return the JSON object of a request, empty when there is no body. It may contain only the keys `known`.

    Raise InvalidError or WrongTypeError.
    """
    if any(each != "identity" for each in request.headers.getall("Content-Encoding", [])):
        raise WrongTypeError("a compressed body is not taken")
    try:
        body = await asyncio.wait_for(request.read(), BODY_SECONDS)
    except TimeoutError:
        raise InvalidError(["body"], f"The body did not come within {BODY_SECONDS:g} s", None, "timeout") from None
    if not body:
        return {}
    if request.content_type != "application/json":
        raise WrongTypeError("the body must be JSON, with Content-Type: application/json")
    try:
        value = json.loads(body, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is not text, and cannot be stored
    except (ValueError, RecursionError) as error:
        raise InvalidError(["body"], f"JSON decode error: {error}", None, "json_invalid") from None
    if not isinstance(value, dict):
        raise InvalidError(["body"], "Input should be an object", echo(value), "dict_type")
    for key in value:
        if key not in known:
            expected = f"expected {' or '.join(known)}" if known else "nothing is expected here"
            message = f"Unknown key{did_you_mean(key, known)}: {expected}"
            raise InvalidError(["body", key], message, echo(value[key]), "extra_forbidden")
    return value


def host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?", host)
    return match[1].lower() if match else ""
