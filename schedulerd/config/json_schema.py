"""The JSON Schema (2020-12) of the configuration file, for editors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from .composites import Section
from .settings import TOP
from .settings_actions import ACTIONS
from .settings_jobs import JOB
from .settings_triggers import TRIGGERS

_FINISH_WITH_EVERY = {
    "if": {"required": ["every", "after"]},
    "then": {"properties": {"after": {"const": "finish"}}},
    "else": {"properties": {"after": {"type": "object"}}},
}


def json_schema() -> dict[str, Any]:
    """Return the schema."""
    job = Section(JOB).schema()
    job["allOf"] = [_exactly_one(list(ACTIONS)), _at_most_one(list(TRIGGERS)), _FINISH_WITH_EVERY]
    schema = Section(TOP).schema()
    schema["properties"]["jobs"]["additionalProperties"] = job
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "schedulerd configuration",
        **schema,
    }


def _exactly_one(names: Sequence[str]) -> dict[str, Any]:
    return {"oneOf": [{"required": [name]} for name in names]}


def _at_most_one(names: Sequence[str]) -> dict[str, Any]:
    pairs = [list(pair) for pair in itertools.combinations(names, 2) if set(pair) != {"every", "after"}]
    return {"not": {"anyOf": [{"required": pair} for pair in pairs]}}
