"""Reads the settings of the process of a job into fields of the `Job`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.models import ParamWord
from .fields import Path, Report
from .params import params_from, without_options
from .resolver import Resolver
from .settings_jobs import Leftovers


def process_fields(
    value: Mapping[str, Any], options: Mapping[str, Any], resolver: Resolver, path: Path, report: Report
) -> dict[str, Any]:  # fmt: skip
    """Return the fields of a `Job` about its parameters and its process. `options` are those of its action."""
    params = params_from(value.get("params") or {}, (*path, "params"), report)
    words = {word.name for word in options.get("command") or () if isinstance(word, ParamWord)} if params else ()
    interpreter = value["interpreter"]
    return {
        "params": without_options(params, words),
        "python_path": tuple(map(resolver.path, value["python_path"])),
        "interpreter": resolver.path(interpreter) if interpreter and "/" in interpreter else interpreter or None,
        "user": value["user"] or None,
        "group": value["group"] or None,
        "umask": value["umask"],
        "nice": value["nice"],
        "ionice": value["ionice"],
        "limits": {name: each for name, each in value["limits"].items() if each is not None},
        "keeps_leftovers": value["leftovers"] is Leftovers.KEEP,
        "output_limit_bytes": value["output_limit"],
        "env_files": tuple(_env_file(each, resolver) for each in value["env_file"]),
        "allowed_env": tuple(value["allow_env"]),
    }


def _env_file(path: str, resolver: Resolver) -> str:
    """Return an absolute path, after the '-' of a file that may be missing."""
    return "-" * path.startswith("-") + resolver.path(path.removeprefix("-"))
