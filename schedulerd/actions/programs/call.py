"""Program of the action `python`: calls a function. Usage: `PYTHON call.py`, with the order as JSON on standard input.

    {"call": "module:function", "args": [...], "kwargs": {...}, "path": [...]}

The file is self-contained. Python 3.8 or later runs it by its path, with the standard library only. An int that the
function returns is `records_processed`. A mapping has the keys of the result file. An exception makes the run fail, and
its text is the error message.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import sys
import traceback
from typing import Any

TRACEBACK_LIMIT = 16000  # characters; the last ones are kept
MESSAGE_LIMIT = 2000


def main() -> int:
    """Call the function; return the exit status."""
    order = json.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = order["path"] + [each for each in sys.path if os.path.abspath(each) != here]
    sys.argv = [order["call"]]
    try:
        value = _called(order)
    except SystemExit:
        raise
    except BaseException as error:
        _failed(error)
        return 1
    _returned(value)
    return 0


def _called(order: dict[str, Any]) -> Any:
    module, _, names = order["call"].partition(":")
    function: Any = importlib.import_module(module)
    for name in names.split("."):
        function = getattr(function, name)
    value = function(*order["args"], **order["kwargs"])
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def _failed(error: BaseException) -> None:
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next  # frames of this file do not concern the function
    lines = traceback.format_exception(type(error), error, frame)
    text = "".join(lines)
    sys.stderr.write(text)
    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    result = _so_far()
    details = result.get("details")
    shown = {"traceback": _clean(text[-TRACEBACK_LIMIT:])}
    result["details"] = {**details, **shown} if isinstance(details, dict) else shown
    result["message"] = _clean(message[:MESSAGE_LIMIT])
    _report(result)


def _returned(value: Any) -> None:
    if value is None:
        return
    result = _so_far()
    if isinstance(value, dict):
        try:
            json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            value = {"warnings": [f"the mapping that was returned is not JSON: {_clean(str(error)[:200])}"]}
        result.update(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        result["records_processed"] = value
    else:
        kind = type(value).__name__
        result["warnings"] = [f"a value of type {kind} was returned: expected None, an int or a mapping"]
    _report(result)


def _so_far() -> dict[str, Any]:
    """Return the result file that the function itself has written, empty when there is none."""
    try:
        with open(os.environ["SCHEDULERD_RESULT_FILE"], encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, KeyError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _report(result: dict[str, Any]) -> None:
    path = os.environ.get("SCHEDULERD_RESULT_FILE")
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(result, file)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")


if __name__ == "__main__":
    sys.exit(main())
