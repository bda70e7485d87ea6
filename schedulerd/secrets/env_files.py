"""Files of variables for the environment of a job's processes: lines KEY=VALUE, as in systemd.exec(5), EnvironmentFile=."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress

from ..core.errors import StartError
from ..host.files import read_text
from ..host.trust import trusted

SIZE_LIMIT = 1024 * 1024  # bytes

# Variables that are commands to the program that reads them: they say what it runs, loads or begins with (compare
# sudoers(5), env_delete, and ld.so(8), secure-execution mode). Not ENV, which only a shell at a terminal reads, and which
# many a file of settings has (ENV=production).
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
    """Return whether a variable is a command to a program that reads it, such as PATH or LD_PRELOAD."""
    return bool(_DECIDING.fullmatch(name))


def variables_for(path: str, own: Collection[int], allowed: Collection[str]) -> dict[str, str]:
    """Return what a file sets for a job whose process runs as another user; `own` is that user, empty for the daemon's.

    A file that the user may change sets no variable that decides what runs, but for those that are `allowed`: the job may
    have secrets, or a group, that its user has not. Raise StartError as `variables_in` does.
    """
    if not own:
        return variables_in(path, trusted())
    with suppress(StartError):  # the user may change it, or it cannot be read: the second look says which
        return variables_in(path, trusted())
    found = variables_in(path, trusted(own))
    refused = ", ".join(name for name in found if decides_what_runs(name) and name not in allowed)
    if refused:
        name = path.removeprefix("-")
        text = f"the env_file {name} sets {refused}, which decides what runs, and the job's user may change it"
        raise StartError(f"{text}: take {refused} out of it, or say allow_env: [{refused}]")
    return found


def variables_in(path: str, users: Collection[int] | None) -> dict[str, str]:
    """Return what a file sets; with '-' before its path it may be missing.

    Raise StartError, which shows no value, when it cannot be read, and when others than `users` may change it. None: it is
    not asked who may (nothing is run by what it says).
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
