"""Environment files of jobs: lines KEY=VALUE, as in systemd.exec(5), EnvironmentFile=."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress

from ..core.errors import StartError
from ..host.files import read_text
from ..host.trust import trusted

SIZE_LIMIT = 1024 * 1024  # bytes

# Variables that decide which code a program runs or loads (compare sudoers(5), env_delete, and ld.so(8), secure-execution
# mode). ENV is not among them: only interactive shells read it, and many files of settings contain it (ENV=production).
_DECIDING = re.compile("|".join((
    "PATH|IFS|SHELL|SHELLOPTS|BASHOPTS|BASH_.*|PS4|CDPATH|ZDOTDIR",
    "LD_.*|GLIBC_TUNABLES|MALLOC_TRACE|GCONV_PATH|GETCONF_DIR|LOCPATH|NLSPATH|TZDIR|TERMINFO|TERMINFO_DIRS|TERMCAP",
    "HOSTALIASES|LOCALDOMAIN|RES_OPTIONS|RESOLV_HOST_CONF",
    "PYTHON.*|PERLLIB|PERL5.*|RUBYOPT|RUBYLIB|NODE_OPTIONS|NODE_PATH|LUA_(C?PATH|INIT).*|PHPRC|PHP_INI_SCAN_DIR",
    "CLASSPATH|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|JAVA_TOOL_OPTIONS|DOTNET_STARTUP_HOOKS|OPENSSL_(CONF|MODULES|ENGINES)",
    "GIT_(SSH.*|ASKPASS|CONFIG.*|EDITOR|EXEC_PATH|EXTERNAL_DIFF|PAGER|PROXY_COMMAND|SEQUENCE_EDITOR|TEMPLATE_DIR)",
    "(SSH|SUDO)_ASKPASS|(RSYNC|CVS)_RSH|TAR_OPTIONS|MAKEFLAGS|LESSOPEN|LESSCLOSE|PAGER|EDITOR|VISUAL",
)))  # fmt: skip
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def decides_what_runs(name: str) -> bool:
    """Return whether a variable decides which code a program runs or loads, such as PATH or LD_PRELOAD."""
    return bool(_DECIDING.fullmatch(name))


def variables_for(path: str, own: Collection[int], allowed: Collection[str]) -> dict[str, str]:
    """Return the variables that a file sets for a job. `own` is the job's user, empty for the daemon's user.

    A file that the job's user can change sets no variable that decides what runs, except those in `allowed`: the job may
    have secrets or a group that its user does not have. Raise StartError as `variables_in` does.
    """
    if not own:
        return variables_in(path, trusted())
    with suppress(StartError):  # the user can change it, or it cannot be read: the next call decides
        return variables_in(path, trusted())
    found = variables_in(path, trusted(own))
    refused = ", ".join(name for name in found if decides_what_runs(name) and name not in allowed)
    if refused:
        name = path.removeprefix("-")
        text = f"the env_file {name} sets {refused}, which decides what runs, and the job's user can change it"
        raise StartError(f"{text}: remove {refused} from it, or set allow_env: [{refused}]")
    return found


def variables_in(path: str, users: Collection[int] | None) -> dict[str, str]:
    """Return the variables that a file sets; a path with the prefix '-' may be missing.

    Raise StartError, which contains no value, when the file cannot be read or when others than `users` can change it. With
    None, its permissions are not checked: the values are not used to run anything.
    """
    may_be_missing, path = path.startswith("-"), path.removeprefix("-")
    try:
        text = read_text(path, SIZE_LIMIT, users)
    except FileNotFoundError:
        if may_be_missing:
            return {}
        raise StartError(f"there is no env_file {path}") from None
    except ValueError as error:
        raise StartError(f"the env_file {path} cannot be read: {error}") from None
    return dict(
        _variable(path, number, line)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and line.lstrip()[0] not in "#;"
    )


def _variable(path: str, number: int, line: str) -> tuple[str, str]:
    found = _LINE.fullmatch(line)
    value = found[2].strip() if found else ""
    if value[:1] in ("'", '"') and value:
        is_closed = len(value) > 1 and value[-1] == value[0]
        value, found = value[1:-1], found if is_closed else None
    if found is None or "\0" in value:
        raise StartError(f"the env_file {path}, line {number}: expected KEY=VALUE")
    return found[1], value
