"""The table of settings: help texts and examples, from which documentation is generated."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from schedulerd import __version__
from schedulerd.config.composites import Option
from schedulerd.config.settings import TOP
from schedulerd.config.yaml import Document


def options_in(value, path: str = "") -> Iterator[tuple[str, Option]]:
    """Yield every setting below a field, an option or a table, with its dotted path."""
    if isinstance(value, dict):
        options = {name: each for name, each in value.items() if isinstance(each, Option)}
        for name, option in options.items():
            yield f"{path}.{name}".strip("."), option
            yield from options_in(option.kind, f"{path}.{name}".strip("."))
    elif is_dataclass(value):
        for each in fields(value):
            yield from options_in(getattr(value, each.name), path)


OPTIONS = dict(options_in(TOP))


def mistakes_in(option: Option) -> list[object]:
    """Return the problems of the example of a setting."""
    document = Document("example.yaml", f"setting: {option.example}\n".encode())
    found: list[object] = list(document.problems)
    option.kind.read(document.value["setting"], (), lambda path, text: found.append((path, text)))
    return found


def test_all_levels_are_found():
    assert {"state_dir", "api.peers.role", "jobs.backup.keep.daily", "jobs.params.choices", "pools.limit"} <= OPTIONS.keys()


def test_a_help_text_consists_of_sentences():
    starts = ("true:", "false:", "finish", "HOST:PORT")

    assert [name for name, each in OPTIONS.items() if not (each.help[0].isupper() or each.help.startswith(starts))] == []
    assert [name for name, each in OPTIONS.items() if not each.help.endswith(".")] == []


def test_an_example_is_yaml_that_its_setting_accepts():
    assert {name: found for name, each in OPTIONS.items() if (found := mistakes_in(each))} == {}
    assert [name for name, each in OPTIONS.items() if each.example is None] == []


def version(text: str) -> list[int]:
    return [int(part) for part in text.split(".")[:3]]


def test_a_setting_names_the_version_that_added_it():
    assert [name for name, each in OPTIONS.items() if version(each.since) > version(__version__)] == []
