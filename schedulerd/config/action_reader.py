"""What a job of the configuration does, and what its process may be and use: read into the fields of `Job`, and checked."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from functools import cache
from typing import Any, TypeVar

from ..backups.manifest import maker_at
from ..backups.source import HISTORY
from ..core.clock import SystemClock
from ..core.models import Job, ParamWord, Secret
from ..core.text import did_you_mean, hidden
from ..host.accounts import expired_on, is_known, user_of
from ..host.remedies import DROP_INS
from .fields import Path, Report
from .params import params_from, without_options, words_that_run
from .settings_actions import BACKUP_SCHEMES, POSTGRESQL, REDIS, SOURCE_SCHEMES, SQLITE
from .settings_backups import CIPHERS, BackupContent
from .settings_jobs import SAFE_PATH, Leftovers

Value = TypeVar("Value")
HTTP_URL = r"https?://[^/\s]\S*"
MERGED = ("env", "limits")  # a job's own are added to those of defaults
_ERASING = re.compile(r"(?<!>)>\|?\s*[\"']?/(?:dev/(?:stdout|stderr|fd/[12])|proc/self/fd/[12])\b")  # `>> ` does not


def settings_of(defaults: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's settings: those of `defaults`, and its own in their place or beside them."""
    value = {**defaults, **read}
    for name in MERGED:
        own = {key: each for key, each in read.get(name, {}).items() if each is not None}
        value[name] = {**defaults[name], **own}
    return value


class ActionReader:
    """Reads and checks the actions of jobs; `absolute` makes a path absolute, `sources` are those of the file.

    A job `is_known` when it was found right before, and is read from a copy: what this host has lost since then is only
    warned of, and fails its runs.
    """

    def __init__(self, absolute: Callable[[str], str], sources: Mapping[str, str | Secret], is_known: bool) -> None:
        self._absolute = absolute
        self._sources = sources
        self._is_known = is_known
        self._found_commands: dict[tuple[str, str], bool] = {}
        self._end_of = cache(_end_of)  # thousands of jobs may run as one user
        self._state_dir = ""
        self._store: str | Secret = ""
        self._schema = ""

    def take_places(self, state_dir: str, store: str | Secret, schema: str) -> None:
        """Hear where schedulerd's own things are, before any job is read."""
        self._state_dir, self._store, self._schema = state_dir, store, schema

    def source(self, url: str | Secret) -> str | Secret:
        """Return the URL of a database, the path in it absolute."""
        if isinstance(url, str) and url.startswith(SQLITE):
            return "sqlite://" + self._absolute(url.removeprefix("sqlite://"))
        return self.secret(url)

    def secret(self, value: Value) -> Value | Secret:
        """Return a value of any type; a secret's file is taken from this file's folder."""
        if isinstance(value, Secret) and value.source == "file":
            return Secret("file", self._absolute(value.name))
        return value

    def options(self, action: str, given: Any) -> Mapping[str, Any]:
        """Return what stands under the action's key, its paths made absolute and the source of `sql` looked up."""
        if not isinstance(given, Mapping):
            return {action: given}
        value: dict[str, Any] = {name: self.secret(each) for name, each in given.items()}
        if value.get("storage"):
            value["storage"] = tuple(map(self._absolute, value["storage"]))
        for name in ("directory", "file", "verify", "folder", "age_identity", "gnupg_home", "pg_bin"):
            if isinstance(value.get(name), str):
                value[name] = self._absolute(value[name])
        if action == "health_check":
            value["targets"] = {name: self._target(each) for name, each in value["targets"].items()}
        if action == "http":
            value["headers"] = {name: self.secret(each) for name, each in value["headers"].items()}
        if action == "sql" and value["dsn"]:
            value["dsn"] = self._url(value["dsn"])
        if action == "restore_drill" and value["into"]:
            value["into"] = self._url(value["into"])
        return self._backup(value) if action == "backup" else value

    def _target(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return a target of a health check, its paths made absolute."""
        found: dict[str, Any] = {name: self.secret(each) for name, each in target.items()}
        if target["storage"] is not None:
            found["storage"] = self._absolute(target["storage"])
        return found

    def _url(self, source: str | Secret) -> str | Secret:
        """Return the URL of a source that is named, or given as one."""
        return self.source(self._sources.get(source, source) if isinstance(source, str) else source)

    def _backup(self, value: dict[str, Any]) -> dict[str, Any]:
        """Add to the settings of a backup the `url` of its source, where it goes, and whose it is."""
        source = value["source"]
        value["url"] = self._store if source == HISTORY else self._url(source) if source else None
        value["schema"] = self._schema if source == HISTORY else None  # of a PostgreSQL, ours is one among others
        value["directory"] = value["directory"] or self._usual_backups()
        value["maker"] = maker_at(self._state_dir)
        value["keep"] = {name: count for name, count in (value["keep"] or {}).items() if count}
        given = value["encrypt"] or {}
        value["encrypt"] = {
            name: tuple(self._absolute(each) if each[:1] in ("/", ".", "~") else each for each in given[name])
            for name in CIPHERS if given.get(name)
        }  # fmt: skip
        return value

    def process_fields(
        self, value: Mapping[str, Any], options: Mapping[str, Any], path: Path, report: Report
    ) -> dict[str, Any]:
        """Return the fields of a `Job` that say what its process may be and use, from its settings and its action's."""
        params = params_from(value.get("params") or {}, (*path, "params"), report)
        words = {word.name for word in options.get("command") or () if isinstance(word, ParamWord)} if params else ()
        return {
            "params": without_options(params, words),
            "python_path": tuple(map(self._absolute, value["python_path"])),
            "interpreter": self._program(value["interpreter"]) if value["interpreter"] else None,
            "user": value["user"] or None,
            "group": value["group"] or None,
            "umask": value["umask"],
            "nice": value["nice"],
            "ionice": value["ionice"],
            "limits": {name: each for name, each in value["limits"].items() if each is not None},
            "keeps_leftovers": value["leftovers"] is Leftovers.KEEP,
            "output_limit_bytes": value["output_limit"],
            "env_files": tuple(map(self._env_file, value["env_file"])),
            "allowed_env": tuple(value["allow_env"]),
        }

    def _program(self, name: str) -> str:
        """Return where a program is; one without a folder is looked for on the job's PATH."""
        return self._absolute(name) if "/" in name else name

    def _env_file(self, path: str) -> str:
        return "-" * path.startswith("-") + self._absolute(path.removeprefix("-"))

    def check(self, job: Job, given: Any, path: Path, report: Report, warn: Report) -> None:
        """Report what is wrong with a job that was read from `given`, what stood under the key of its action."""
        action = (*path, job.action)
        _check_identity(job, path, warn if self._is_known else report)
        if job.user not in (None, "root") and os.geteuid() == 0 and (end := self._end_of(job.user)):
            warn((*path, "user"), f"the account of {job.user} expired on {end}: each run would fail")
        for name, schemes in SOURCE_SCHEMES.get(job.action, {}).items():
            source = given.get(name) if isinstance(given, Mapping) else None
            if source and not isinstance(source, Secret):
                self._check_source(source, schemes, (*action, name), report)
        if job.action == "backup":
            self._check_backup(job, action, report, warn)
        if job.action == "health_check":
            self._check_targets(job.options["targets"], (*action, "targets"), report)
        if job.cwd is not None and _is_missing(job.cwd):
            warn((*path, "cwd"), f"there is no folder {job.cwd} on this host now: each run would fail")
        if job.action == "command" and job.options["command"]:
            self._check_command(job, action, report, warn)
        elif job.action == "shell" and (erasing := _ERASING.search(job.options["shell"])):
            warn(action, f"{erasing[0]} erases what the job has written before, since its output is a file: use >&1 or >&2")
        elif job.action in _CHECKS and isinstance(given, Mapping):
            _CHECKS[job.action](job.options, action, report)
        required = sorted(name for name, param in job.params.items() if param.default is None)
        if required and job.trigger is not None:
            text = f"{' and '.join(required)} must be given, and nobody gives them to a job that a trigger starts"
            report((*path, "params", required[0]), f"{text}: expected a default")

    def _check_targets(self, targets: Mapping[str, Mapping[str, Any]], path: Path, report: Report) -> None:
        for name, target in targets.items():
            for kind, schemes in SOURCE_SCHEMES["health_check"].items():
                if isinstance(target[kind], str) and target[kind]:
                    self._check_source(target[kind], schemes, (*path, name, kind), report)
            url = target["http"]
            if isinstance(url, str) and not re.fullmatch(HTTP_URL, url):
                report((*path, name, "http"), f"{hidden(url)}: expected an http:// or https:// URL")

    def _check_source(self, source: str, schemes: tuple[str, ...], path: Path, report: Report) -> None:
        """Check a source that is named, or given as a URL: that it is there, and is something that the action takes."""
        known = [HISTORY, *self._sources] if schemes == BACKUP_SCHEMES else list(self._sources)
        named = source == HISTORY or source in self._sources
        url = self._sources.get(source, "sqlite://" if source in known else source)
        if isinstance(url, Secret) or url.startswith(schemes):
            return
        if named or "://" in source:
            report(path, f"{repr(source) if named else hidden(source)} is no {' or '.join(schemes)} URL or source")
            return
        expected = f"one of {', '.join(known)}" if known else "one that sources: names"
        report(path, f"{hidden(source)} names no source{did_you_mean(source, known)}: expected {expected}")

    @staticmethod
    def paired(job: Job, jobs: Mapping[str, Job], path: Path, report: Report) -> Job:
        """Return a restore drill that knows where the backups are that it tries, and whose."""
        options, of = job.options, jobs.get(job.options["of"])
        if of is None or of.action != "backup":
            near = did_you_mean(options["of"], [each for each, one in jobs.items() if one.action == "backup"])
            report((*path, "of"), f"{options['of']!r} is no job that makes backups{near}")
            return job
        url, directory = of.options["url"], of.options["directory"]
        if of.options["content"] is BackupContent.GLOBALS:
            report((*path, "of"), "globals cannot be restored aside: they are of a whole server")
        if isinstance(url, str) and url.startswith(POSTGRESQL) and options["into"] is None:
            report(path, "into: is missing: the server on which a scratch database is made")
        for name in ("age_identity", "gnupg_home"):
            if options[name] is not None and os.path.commonpath([directory, options[name]]) == directory:
                report((*path, name), "the key lies among the backups: who has them has the key, too")
        taken = {name: of.options[name] for name in ("maker", "min_free")}
        return replace(job, options={**options, "directory": directory, **taken})

    def _check_backup(self, job: Job, path: Path, report: Report, warn: Report) -> None:
        if job.user is not None and job.options["directory"] == self._usual_backups():
            report(path, f"directory: is missing: {job.user} has no way into {job.options['directory']}")
        if job.options["folder"] is not None and os.path.relpath(job.options["folder"], job.options["directory"]) == ".":
            report((*path, "directory"), "the folder would be backed up into itself: name another one, within it if need be")
        path_of_job = job.env.get("PATH", SAFE_PATH)
        search = "" if isinstance(path_of_job, Secret) else ":".join(filter(None, (job.options["pg_bin"], path_of_job)))
        for program in programs_of(job.options) if search else ():
            if not shutil.which(program, path=search):
                warn(path, f"there is no program {program!r} on this host now: each run would fail")

    def _usual_backups(self) -> str:
        return os.path.join(self._state_dir, "backups")

    def _check_command(self, job: Job, path: Path, report: Report, warn: Report) -> None:
        program, *arguments = job.options["command"]
        for index, word in enumerate(arguments, 1):
            if isinstance(word, ParamWord) and word.name not in job.params:
                text = f"there is no parameter {word.name!r}{did_you_mean(word.name, job.params)}"
                report((*path, index), f"{text}: expected one that params: declares")
        if isinstance(program, ParamWord):
            report((*path, 0), "the program cannot be a parameter: who triggers the job would choose what runs")
            return
        for index, reader in words_that_run((program, *arguments)).items():
            if isinstance(word := (program, *arguments)[index], ParamWord):
                text = f"the value of {word.name} is run as a program by {reader}: who triggers the job chooses what runs"
                warn((*path, index), f"{text} (a shell line takes it as a variable: $SCHEDULERD_PARAM_{word.name.upper()})")
        search = job.env.get("PATH", SAFE_PATH)
        key = (program, str(search))
        if key not in self._found_commands:
            self._found_commands[key] = isinstance(search, Secret) or bool(shutil.which(program, path=search))
        if not self._found_commands[key]:
            warn((*path, 0), f"there is no program {program!r} on this host now: each run would fail")


def _is_missing(folder: str) -> bool:
    """Return whether there is no such folder; one that we may not look at may be there."""
    try:
        return not stat.S_ISDIR(os.stat(folder).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _check_http(options: Mapping[str, Any], path: Path, report: Report) -> None:
    url = options["url"]
    if isinstance(url, str) and url and not re.fullmatch(HTTP_URL, url):
        report((*path, "url"), f"{hidden(url)}: expected an http:// or https:// URL")
    if options["body"] is not None and options["json"] is not None:
        report((*path, "json"), "either body or json is sent")
    if options["expect_json"] is not None and not isinstance(options["expect_json"], Mapping):
        report((*path, "expect_json"), f"expected a mapping, not {hidden(options['expect_json'])}")
    if not isinstance(options["verify"], (bool, str)):
        report((*path, "verify"), f"expected true, false or a file, not {hidden(options['verify'])}")


_PROGRAMS = {POSTGRESQL: ("pg_dump", "pg_restore"), REDIS: ("redis-cli", "redis-check-rdb")}


def programs_of(options: Mapping[str, Any]) -> list[str]:
    """Return the programs that making a backup calls, as far as its source is known when the file is read."""
    url = options["url"] if isinstance(options["url"], str) else ""
    found = [program for schemes, programs in _PROGRAMS.items() if url.startswith(schemes) for program in programs]
    found += ["tar"] * (options["folder"] is not None)
    found += [str(options["compress"])] * (options["compress"] != "none")
    return found + list(options["encrypt"])


def _check_backup(options: Mapping[str, Any], path: Path, report: Report) -> None:
    url = options["url"]
    is_other = options["folder"] is not None or (isinstance(url, str) and not url.startswith(POSTGRESQL))
    if options["content"] is BackupContent.GLOBALS and is_other:
        report((*path, "content"), "only a PostgreSQL has globals")


def _check_sql(options: Mapping[str, Any], path: Path, report: Report) -> None:
    if (options["statement"] is None) == (options["file"] is None):
        report(path, "sql needs either statement: or file:")


_CHECKS: Mapping[str, Callable[[Mapping[str, Any], Path, Report], None]] = {
    "http": _check_http, "sql": _check_sql, "backup": _check_backup,
}  # fmt: skip


def _check_identity(job: Job, path: Path, report: Report) -> None:
    for key, name in (("user", job.user), ("group", job.group)):
        if name is None:
            continue
        if os.geteuid() != 0:
            report((*path, key), _why_not_root(key, name))
        elif not is_known(key, name):
            report((*path, key), f"there is no {key} {name!r} on this host")
        elif key == "user" and name != "root" and user_of(name).pw_uid == 0:
            report((*path, key), f"{name!r} is root: expected root, spelt so, if that is meant")


def _why_not_root(key: str, name: str) -> str:
    if key == "user" and is_known(key, name) and user_of(name).pw_uid == os.geteuid():
        return f"{name} is the daemon's own user: leave `user:` out"
    return f"only a daemon that is root can start processes of another {key}: see as-root.conf ({DROP_INS})"


def _end_of(name: str) -> date | None:
    """Return the day on which an account has ended; None also when that cannot be known now, and a run will tell."""
    with suppress(KeyError, OSError):
        return expired_on(user_of(name), SystemClock().now())
    return None
