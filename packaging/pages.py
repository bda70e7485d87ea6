"""Write the man pages and the completions from the tables of the program.

    python3 packaging/pages.py FOLDER

It writes schedulerd.8, schedulerctl.1 and schedulerd.yaml.5 (man(7)), and completions for bash, zsh and fish, to FOLDER. The
prose is in the *.man files beside this one. A line `@NAME@` in them is replaced by a generated text.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from reference import (
    arguments_of,
    commands_of,
    default_of,
    records_in,
    takes_value,
    tree_of,
    type_of,
    value_of,
)

from schedulerd import __main__ as program
from schedulerd import __version__
from schedulerd.cli import main as ctl
from schedulerd.config.composites import Option
from schedulerd.config.settings import TOP
from schedulerd.config.settings_actions import ACTIONS
from schedulerd.config.settings_jobs import JOB
from schedulerd.config.settings_triggers import TRIGGERS

HERE = Path(__file__).parent
DEEPEST = 3
JOB_WORDS = ("JOB", "RUN_ID|JOB")


def escaped(text: str) -> str:
    """Return text for man(7) without requests and escapes."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("`", r"\(ga")
    text = text.replace("~", r"\(ti").replace("^", r"\(ha").replace('"', r"\(dq")
    return r"\&" + text if text.startswith((".", r"\(aq")) else text


def item(term: str, text: str) -> str:
    """Return a paragraph with a hanging term. Code between backticks is bold."""
    bold = re.sub(r"\\\(ga(.+?)\\\(ga", r"\\fB\1\\fR", escaped(text))
    return f".TP\n{term}\n{bold}\n"


# Options of a program


def help_of(action: argparse.Action) -> str:
    """Return the help of an argument as `--help` shows it."""
    return (action.help or "") % {**vars(action), "prog": ""}


def term_of(action: argparse.Action) -> str:
    """Return an argument in the markup of a man page."""
    value = rf"\fI{escaped(value_of(action))}\fR"
    if not action.option_strings:
        return f"[{value}]" if action.nargs == "?" else value
    names = ", ".join(rf"\fB{escaped(name)}\fR" for name in action.option_strings)
    return f"{names} {value}" if takes_value(action) else names


def options_text(parser: argparse.ArgumentParser) -> str:
    """Return the arguments of a parser as paragraphs."""
    return "".join(item(term_of(action), help_of(action)) for action in arguments_of(parser))


def commands_text(parser: argparse.ArgumentParser) -> str:
    """Return all subcommands, each with its arguments."""
    text = ""
    for path, command in tree_of(parser):
        own = [action for action in arguments_of(command) if action.dest != "json"]
        words = [term_of(action) for action in own if not action.option_strings]
        inner = "".join(item(term_of(action), help_of(action)) for action in own if action.help)
        if path:
            text += item(" ".join([f"\\fB{escaped(' '.join(path))}\\fR", *words]), command.description or "")
            text += f".RS\n{inner}.RE\n" if inner else ""
    return text


# Settings of the configuration


def settings_text(table: Mapping[str, Option], depth: int = 0, besides: frozenset[str] = frozenset()) -> str:
    """Return a table of settings as paragraphs. The settings in `besides` are shown without their inner settings."""
    text = ""
    for name, option in table.items():
        default = "required" if option.required else default_of(option) and f"default: {default_of(option)}"
        remark = "; ".join(filter(None, (type_of(option.kind), default)))
        example = f" Example: {option.example}" if option.example else ""
        text += item(f"\\fB{escaped(name)}\\fR{escaped(remark and f' ({remark})')}", option.help + example)
        if name not in besides and depth < DEEPEST:
            inner = "".join(settings_text(record.options, depth + 1) for record in records_in(option.kind))
            text += f".RS\n{inner}.RE\n" if inner else ""
    return text


# Completions


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in arguments_of(parser) if action.option_strings]


def takes_job(command: argparse.ArgumentParser) -> bool:
    """Return whether an argument of a command is a job."""
    return any(action.metavar in JOB_WORDS for action in arguments_of(command) if not action.option_strings)


def _place(path: tuple[str, ...], *names: str) -> str:
    return "".join(f"/{word}" for word in (*path, *names))


def _valued(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Yield the options that have a value, each with its path: `/db/status/--config`."""
    for path, command in tree_of(parser):
        for action in filter(takes_value, _options(command)):
            for name in action.option_strings:
                yield _place(path, name), action


def _choices(action: argparse.Action) -> str:
    return " ".join(map(str, action.choices or ()))


def bash(parser: argparse.ArgumentParser) -> str:
    """Return a completion for bash."""
    tree = [(_place(path), each) for path, each in tree_of(parser)]
    fixed = [(place, _choices(action)) for place, action in _valued(parser) if action.choices]
    words = {
        place: [*commands_of(each), *(name for action in _options(each) for name in action.option_strings)]
        for place, each in tree
    }
    return BASH.substitute(
        commands="|".join(place for place, _ in tree if place),
        valued="|".join(place for place, _ in _valued(parser)),
        choices="\n".join(f'        {place}) words="{values}" ;;' for place, values in fixed),
        cases="\n".join(f'            "{place}") words="{" ".join(each)}" ;;' for place, each in words.items()),
        jobs="|".join(place for place, each in tree if takes_job(each)),
    )  # fmt: skip


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def zsh(parser: argparse.ArgumentParser) -> str:
    """Return a completion for zsh: a function for each command that has subcommands."""
    functions = [_zsh_function(path, each) for path, each in tree_of(parser) if commands_of(each)]
    return ZSH.substitute(functions="".join(functions))


def _zsh_name(path: tuple[str, ...]) -> str:
    return "_".join(("_schedulerctl", *path))


def _zsh_function(path: tuple[str, ...], parser: argparse.ArgumentParser) -> str:
    commands = commands_of(parser)
    described = "\n".join(f"        '{name}:{_quoted(each.description or '')}'" for name, each in commands.items())
    cases = "\n".join(f"        {name}) {_zsh_case((*path, name), each)} ;;" for name, each in commands.items())
    own = " ".join(map(_zsh_option, _options(parser)))
    return ZSH_FUNCTION.substitute(name=_zsh_name(path), described=described, cases=cases, own=own)


def _zsh_case(path: tuple[str, ...], parser: argparse.ArgumentParser) -> str:
    if commands_of(parser):
        return _zsh_name(path)
    return " ".join(["_arguments", *map(_zsh_option, _options(parser)), *([_ZSH_JOB] if takes_job(parser) else [])])


_ZSH_JOB = "'1:job:_schedulerctl_jobs'"


def _zsh_option(action: argparse.Action) -> str:
    text = re.sub(r"([\[\]:])", r"\\\1", help_of(action))
    value = f":{value_of(action).lower().replace(':', '')}:" if takes_value(action) else ""
    value += f"({_choices(action)})" if action.choices else ""
    return " ".join(f"'{name}[{_quoted(text)}]{value}'" for name in action.option_strings)


def fish(parser: argparse.ArgumentParser) -> str:
    """Return a completion for fish."""
    tree = [(_place(path), each) for path, each in tree_of(parser)]
    lines = [FISH.substitute(commands=" ".join(filter(None, dict(tree))), valued=" ".join(dict(_valued(parser))))]
    for place, each in tree:
        here = f"complete -c schedulerctl -n '__schedulerctl_at {place}'"
        lines += [f"{here} -f -a {name} -d '{_fish(one.description or '')}'" for name, one in commands_of(each).items()]
        lines += [f"{here} {_fish_option(action)}" for action in _options(each)]
        lines += [f"{here} -f -a '(__schedulerctl_jobs)'"] if takes_job(each) else []
    return "\n".join(lines) + "\n"


def _fish(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _fish_option(action: argparse.Action) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in action.option_strings)
    values = f" -a '{_choices(action)}'" if action.choices else ""
    return f"{names}{' -x' if takes_value(action) else ''}{values} -d '{_fish(help_of(action))}'"


JOBS = "timeout 2 schedulerctl list 2>/dev/null | awk 'NR > 1 { print $$1 }'"
BASH = Template(
    """# bash completion for schedulerctl(1)
_schedulerctl() {
    local cur=$${COMP_WORDS[COMP_CWORD]} place= before= word words=
    COMPREPLY=()
    for word in "$${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $$place/$$before in
            $valued) before=; continue ;;
        esac
        case $$place/$$word in
            $commands) place=$$place/$$word ;;
        esac
        before=$$word
    done
    case $$place/$$before in
$choices
        $valued) return ;;
        *) case $$place in
$cases
        esac
        case $$place in
            $jobs) [[ $$cur == -* ]] || words=$$(JOBS) ;;
        esac ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$$words" -- "$$cur")
}
complete -F _schedulerctl schedulerctl
""".replace("JOBS", JOBS)
)
ZSH = Template(
    """#compdef schedulerctl
# zsh completion for schedulerctl(1)
_schedulerctl_jobs() {
    compadd -- $${(f)"$$(JOBS)"}
}
$functions
_schedulerctl "$$@"
""".replace("JOBS", JOBS)
)
ZSH_FUNCTION = Template(
    """$name() {
    local -a commands
    local line state
    commands=(
$described
    )
    _arguments -C $own '1: :->command' '*:: :->rest'
    case $$state in
    command) _describe command commands ;;
    rest)
        case $$words[1] in
$cases
        esac ;;
    esac
}
"""
)
FISH = Template(
    """# fish completion for schedulerctl(1)
function __schedulerctl_jobs
    JOBS
end
function __schedulerctl_at # PLACE, such as /db/status; none is before any command
    set -l place ''
    set -l before ''
    for word in (commandline -opc)[2..-1]
        if contains -- $$place/$$before $valued
            set before ''
            continue
        end
        contains -- $$place/$$word $commands; and set place $$place/$$word
        set before $$word
    end
    test "$$place" = "$$argv"
end""".replace("JOBS", JOBS)
)


def _filled(name: str, **by_program: str) -> str:
    text = (HERE / f"{name}.man").read_text(encoding="utf-8").replace("@version@", __version__)
    for place, words in by_program.items():
        text = text.replace(f"@{place}@\n", words)
    return text


def pages() -> Mapping[str, str]:
    """Return all files by name."""
    control, daemon = ctl.make_parser(), program.make_parser()
    of_jobs = {name: each for name, each in JOB.items() if name not in (*TRIGGERS, *ACTIONS)}
    return {
        "schedulerd.8": _filled("schedulerd.8", options=options_text(daemon)),
        "schedulerctl.1": _filled("schedulerctl.1", options=options_text(control), commands=commands_text(control)),
        "schedulerd.yaml.5": _filled(
            "schedulerd.yaml.5",
            top=settings_text(TOP, besides=frozenset({"jobs", "defaults"})),
            triggers=settings_text(TRIGGERS),
            actions=settings_text(ACTIONS),
            settings=settings_text(of_jobs),
        ),
        "schedulerctl": bash(control),
        "_schedulerctl": zsh(control),
        "schedulerctl.fish": fish(control),
    }


def main(folder: str) -> int:
    """Write all files to a folder."""
    for name, text in pages().items():
        (Path(folder) / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
