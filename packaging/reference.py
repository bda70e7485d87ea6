"""The reference of settings, commands and routes, from the program: the source of the man pages and of the tables in docs/.

    python3 packaging/reference.py FILE...

replaces the generated blocks of Markdown files. A block is the text between `<!-- generated: NAME -->` and `<!-- end -->`.
`blocks()` returns the names.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from schedulerd.api.responses import PREFIX
from schedulerd.api.routes import OPEN_ROUTES, ROUTES
from schedulerd.cli.main import make_parser
from schedulerd.config.composites import ListOf, MapOf, Option, Section
from schedulerd.config.settings import API, TOP
from schedulerd.config.settings_actions import ACTIONS
from schedulerd.config.settings_jobs import JOB
from schedulerd.config.settings_triggers import TRIGGERS
from schedulerd.core.units import format_duration, format_size

SCHEMA_WORDS = {"string": "text", "array": "list", "object": "mapping"}
MARKED = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end -->\n)", re.DOTALL)


# Settings


def records_in(kind: Any) -> Iterator[Section]:
    """Yield the sections that a kind of value is or contains."""
    for _, record in paths_in(kind):
        yield record


def paths_in(kind: Any) -> Iterator[tuple[str, Section]]:
    """Yield each record of a kind with the path below the setting that leads to its keys."""
    if isinstance(kind, Section):
        yield ".", kind
    elif dataclasses.is_dataclass(kind):
        step = {MapOf: ".NAME", ListOf: "[]"}.get(type(kind), "")
        for field in dataclasses.fields(kind):
            for path, record in paths_in(getattr(kind, field.name)):
                yield step + path, record


def type_of(field: Any) -> str:
    """Return the type of a setting's values. One that another part of the program checks has the types of its schema."""
    if field.type_name != "any":
        return str(field.type_name)
    return " or ".join(dict.fromkeys(schema_words(field.schema())))


def schema_words(schema: Mapping[str, Any]) -> list[str]:
    """Return the types that a JSON Schema accepts."""
    if "anyOf" in schema:
        return [word for each in schema["anyOf"] for word in schema_words(each)]
    if "const" in schema:
        return [str(schema["const"])]
    types = schema.get("type", [])
    return [SCHEMA_WORDS.get(each, each) for each in ([types] if isinstance(types, str) else types)] or ["any"]


def default_of(option: Option) -> str:
    """Return the default of a setting as written in YAML, or an empty text."""
    if option.default is None or option.default in ((), {}) or isinstance(option.default, Section):
        return ""
    value = written(option.kind, option.default)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def written(kind: Any, value: Any) -> Any:
    """Return a value of a kind as written in YAML."""
    match type(kind).__name__:
        case "Duration":
            return format_duration(value).replace(".0s", "s") if value else "0"
        case "Size":
            return format_size(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else value


def rows(
    table: Mapping[str, Option], prefix: str = "", without: frozenset[str] = frozenset()
) -> Iterator[tuple[str, Option]]:
    """Yield each setting of a table and of the records in it, by its dotted path. The records of `without` are left out."""
    for name, option in table.items():
        yield f"{prefix}{name}", option
        if name not in without:
            for path, record in paths_in(option.kind):
                yield from rows(record.options, f"{prefix}{name}{path}")


def settings_table(found: Iterator[tuple[str, Option]]) -> str:
    """Return settings as a Markdown table."""
    lines = ["| setting | type | default | since | meaning | example |", "|---|---|---|---|---|---|"]
    for path, option in found:
        default = "required" if option.required else code(default_of(option))
        example = code(option.example or "")
        cells = [f"`{path}`", cell(type_of(option.kind)), default, option.since, cell(option.help), example]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def code(text: str) -> str:
    """Return text as code in a cell."""
    shown = re.sub(r"\s+", " ", text).replace("|", "\\|")
    return f"`{shown}`" if shown else ""


def cell(text: str) -> str:
    """Return text as a cell of a table. Only code between backticks is markup in it."""
    parts = re.sub(r"\s+", " ", text).split("`")
    if len(parts) % 2 == 0:
        parts = ["\\`".join(parts)]
    parts[1::2] = [f"`{part}`".replace("|", "\\|") for part in parts[1::2]]
    parts[::2] = [re.sub(r"([|<*\[\]_])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


# Routes and commands


def route_text(handler: Any) -> str:
    """Return the description of a route: the first line of the docstring of its handler, without the route itself."""
    first = (handler.__doc__ or "").strip().split("\n")[0]
    text = re.sub(r"^(GET|POST|PUT|PATCH|DELETE) \S+: ", "", first).removesuffix(".")
    return text[:1].upper() + text[1:]


def routes_table() -> str:
    """Return all routes as a Markdown table."""
    lines = ["| method | path | role | what it does |", "|---|---|---|---|"]
    for route in ROUTES:
        role = route.role.name.lower()
        lines.append(
            f"| {route.method} | `{route.path.removeprefix(PREFIX)}` | {role} | {cell(route_text(route.handler))} |"
        )
    for path, handler in OPEN_ROUTES.items():
        lines.append(f"| GET | `{path}` | none | {cell(route_text(handler))} |")
    return "\n".join(lines) + "\n"


def commands_of(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Return the subcommands of a parser by their names."""
    found = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return next((action.choices for action in found), {})


def tree_of(parser: argparse.ArgumentParser, *path: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield a parser, its subcommands and theirs, each with the words that lead to it."""
    yield path, parser
    for name, command in commands_of(parser).items():
        yield from tree_of(command, *path, name)


def arguments_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser, without subcommands and --help."""
    hidden = (argparse._SubParsersAction, argparse._HelpAction)
    return [action for action in parser._actions if not isinstance(action, hidden)]


def takes_value(action: argparse.Action) -> bool:
    """Return whether an option is followed by a value."""
    return action.nargs != 0


def value_of(action: argparse.Action) -> str:
    """Return the value of an argument as usage lines name it."""
    if action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def commands_table() -> str:
    """Return all commands of schedulerctl as a Markdown table."""
    lines = ["| command | what it does | options, beside `--json` |", "|---|---|---|"]
    for path, parser in tree_of(make_parser()):
        own = [action for action in arguments_of(parser) if action.dest != "json"]
        words = [f"[{value_of(each)}]" if each.nargs == "?" else value_of(each) for each in own if not each.option_strings]
        options = ", ".join(code(_option(action)) for action in own if action.option_strings)
        if path:
            lines.append(f"| {code(' '.join([*path, *words]))} | {cell(parser.description or '')} | {options} |")
    return "\n".join(lines) + "\n"


def _option(action: argparse.Action) -> str:
    return " ".join([action.option_strings[-1], *([value_of(action)] if takes_value(action) else [])])


# Blocks


def blocks() -> Mapping[str, str]:
    """Return the text of each generated block by its name."""
    job = {name: each for name, each in JOB.items() if name not in (*TRIGGERS, *ACTIONS)}
    found = {
        "top-level settings": settings_table(rows(TOP, without=frozenset({"jobs", "defaults", "api"}))),
        "settings of api": settings_table(rows(API)),
        "triggers": settings_table(rows(TRIGGERS)),
        "actions": settings_table(rows(ACTIONS, without=frozenset(ACTIONS))),
        "settings of jobs": settings_table(rows(job)),
        "routes": routes_table(),
        "commands": commands_table(),
    }
    for name, action in ACTIONS.items():
        inner = [each for path, record in paths_in(action.kind) if path == "." for each in rows(record.options)]
        if inner:
            found[f"settings of {name}"] = settings_table(iter(inner))
    return found


def filled(text: str) -> str:
    """Return a page with all of its blocks generated. Raise KeyError for a block with an unknown name."""
    known = blocks()
    return MARKED.sub(lambda found: f"{found[1]}\n{known[found[2]]}\n{found[3]}", text)


def main(files: list[str]) -> int:
    """Replace the blocks of all files."""
    for file in map(Path, files):
        file.write_text(filled(file.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
