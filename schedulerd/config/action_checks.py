"""Checks jobs that were read: their sources, programs, folders and parameters."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..backups.source import HISTORY
from ..core.models import Job, ParamWord, Secret
from ..core.text import did_you_mean, hidden
from .account_checks import AccountChecker
from .action_reader import OwnData
from .fields import Path, Report
from .params import words_that_run
from .settings_actions import BACKUP_SCHEMES, POSTGRESQL, REDIS, SOURCE_SCHEMES
from .settings_backups import BackupContent
from .settings_jobs import SAFE_PATH

HTTP_URL = r"https?://[^/\s]\S*"
_TRUNCATING = re.compile(r"(?<!>)>\|?\s*[\"']?/(?:dev/(?:stdout|stderr|fd/[12])|proc/self/fd/[12])\b")  # `>>` appends
_PROGRAMS = {POSTGRESQL: ("pg_dump", "pg_restore"), REDIS: ("redis-cli", "redis-check-rdb")}


class ActionChecker:
    """Checks jobs. `sources` are those of the file.

    `is_copy`: the configuration was valid before. What this host lacks now is a warning.
    """

    def __init__(self, sources: Mapping[str, str | Secret], own: OwnData, is_copy: bool) -> None:
        self._sources = sources
        self._own = own
        self._is_copy = is_copy
        self._accounts = AccountChecker()
        self._found_programs: dict[tuple[str, str], bool] = {}

    def check(self, job: Job, given: Any, path: Path, report: Report, warn: Report) -> None:
        """Report what is wrong with a job. `given` is the value of its action in the file."""
        action = (*path, job.action)
        self._accounts.check(job, path, warn if self._is_copy else report, warn)
        for name, schemes in SOURCE_SCHEMES.get(job.action, {}).items():
            source = given.get(name) if isinstance(given, Mapping) else None
            if source and not isinstance(source, Secret):
                self._check_source(source, schemes, (*action, name), report)
        if job.cwd is not None and _is_missing(job.cwd):
            warn((*path, "cwd"), f"folder {job.cwd} does not exist on this host now: each run would fail")
        if job.action == "command" and job.options["command"]:
            self._check_command(job, action, report, warn)
        elif job.action == "shell":
            _check_shell(job.options, action, warn)
        elif isinstance(given, Mapping):
            self._check_options(job, action, report, warn)
        required = sorted(name for name, param in job.params.items() if param.default is None)
        if required and job.trigger is not None:
            what = f"parameter {required[0]} needs" if len(required) == 1 else f"parameters {' and '.join(required)} need"
            report((*path, "params", required[0]), f"{what} a default because the job has a trigger")

    def _check_options(self, job: Job, path: Path, report: Report, warn: Report) -> None:
        """Check the options of an action that has a section of settings."""
        match job.action:
            case "backup":
                self._check_backup(job, path, report, warn)
                _check_content(job.options, path, report)
            case "health_check":
                self._check_targets(job.options["targets"], (*path, "targets"), report)
            case "http":
                _check_http(job.options, path, report)
            case "sql":
                _check_sql(job.options, path, report)

    def _check_targets(self, targets: Mapping[str, Mapping[str, Any]], path: Path, report: Report) -> None:
        for name, target in targets.items():
            for kind, schemes in SOURCE_SCHEMES["health_check"].items():
                if isinstance(target[kind], str) and target[kind]:
                    self._check_source(target[kind], schemes, (*path, name, kind), report)
            _check_url(target["http"], (*path, name, "http"), report)

    def _check_source(self, source: str, schemes: tuple[str, ...], path: Path, report: Report) -> None:
        """Report a source, given by its name or its URL, that does not exist or that the action does not accept."""
        known = [HISTORY, *self._sources] if schemes == BACKUP_SCHEMES else list(self._sources)
        is_name = source == HISTORY or source in self._sources
        url = self._sources.get(source, "sqlite://" if source in known else source)
        if isinstance(url, Secret) or url.startswith(schemes):
            return
        if is_name or "://" in source:
            report(path, f"{repr(source) if is_name else hidden(source)} is not a source or URL of {' or '.join(schemes)}")
            return
        expected = f"one of {', '.join(known)}" if known else "a name in sources:"
        report(path, f"{hidden(source)} does not name a source{did_you_mean(source, known)}: expected {expected}")

    def _check_backup(self, job: Job, path: Path, report: Report, warn: Report) -> None:
        folder, directory = job.options["folder"], job.options["directory"]
        if job.user is not None and directory == self._own.default_backups:
            report(path, f"'directory' is missing: user {job.user} has no access to {directory}")
        if folder is not None and os.path.relpath(folder, directory) == ".":
            report((*path, "directory"), "the folder would be backed up into itself: name another one, for example below it")
        path_of_job = job.env.get("PATH", SAFE_PATH)
        search = "" if isinstance(path_of_job, Secret) else ":".join(filter(None, (job.options["pg_bin"], path_of_job)))
        for program in programs_of(job.options) if search else ():
            if not shutil.which(program, path=search):
                warn(path, _missing_program(program))

    def _check_command(self, job: Job, path: Path, report: Report, warn: Report) -> None:
        program, *arguments = job.options["command"]
        for index, word in enumerate(arguments, 1):
            if isinstance(word, ParamWord) and word.name not in job.params:
                text = f"unknown parameter {word.name!r}{did_you_mean(word.name, job.params)}"
                report((*path, index), f"{text}: expected one that is declared in params:")
        if isinstance(program, ParamWord):
            report((*path, 0), "the program cannot be a parameter: whoever starts the job would choose what runs")
            return
        for index, reader in words_that_run((program, *arguments)).items():
            if isinstance(word := (program, *arguments)[index], ParamWord):
                text = f"{reader} runs the value of {word.name} as a program: whoever starts the job chooses what runs"
                warn((*path, index), f"{text} (in a shell line, use the variable $SCHEDULERD_PARAM_{word.name.upper()})")
        if not self._is_program(program, job.env.get("PATH", SAFE_PATH)):
            warn((*path, 0), _missing_program(program))

    def _is_program(self, program: str, search: str | Secret) -> bool:
        """Return whether a program exists in the folders of `search`, a PATH. A secret is not looked up."""
        key = (program, str(search))
        if key not in self._found_programs:
            self._found_programs[key] = isinstance(search, Secret) or bool(shutil.which(program, path=search))
        return self._found_programs[key]


def paired_drill(job: Job, jobs: Mapping[str, Job], path: Path, report: Report) -> Job:
    """Return a restore drill with the folder and the owner of the backups of its backup job."""
    options, of = job.options, jobs.get(job.options["of"])
    if of is None or of.action != "backup":
        near = did_you_mean(options["of"], [each for each, one in jobs.items() if one.action == "backup"])
        report((*path, "of"), f"{options['of']!r} is not a backup job{near}")
        return job
    url, directory = of.options["url"], of.options["directory"]
    if of.options["content"] is BackupContent.GLOBALS:
        report((*path, "of"), "a drill cannot restore globals: they belong to a whole server")
    if isinstance(url, str) and url.startswith(POSTGRESQL) and options["into"] is None:
        report(path, "'into' is missing: the server on which a scratch database is created")
    for name in ("age_identity", "gnupg_home"):
        if options[name] is not None and os.path.commonpath([directory, options[name]]) == directory:
            report((*path, name), "the key is in the folder of the backups: whoever has the backups has the key, too")
    shared = {name: of.options[name] for name in ("owner", "min_free")}
    return replace(job, options={**options, "directory": directory, **shared})


def programs_of(options: Mapping[str, Any]) -> list[str]:
    """Return the programs that a backup needs, as far as its source is known when the file is read."""
    url = options["url"] if isinstance(options["url"], str) else ""
    found = [program for schemes, programs in _PROGRAMS.items() if url.startswith(schemes) for program in programs]
    found += ["tar"] * (options["folder"] is not None)
    found += [str(options["compress"])] * (options["compress"] != "none")
    return found + list(options["encrypt"])


def _missing_program(program: str) -> str:
    return f"program {program!r} does not exist on this host now: each run would fail"


def _is_missing(folder: str) -> bool:
    """Return whether a folder does not exist. One that cannot be checked may exist."""
    try:
        return not stat.S_ISDIR(os.stat(folder).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _check_shell(options: Mapping[str, Any], path: Path, warn: Report) -> None:
    if found := _TRUNCATING.search(options["shell"]):
        warn(path, f"{found[0]} truncates the output that the job has written so far: use >&1 or >&2")


def _check_url(url: Any, path: Path, report: Report) -> None:
    if isinstance(url, str) and not re.fullmatch(HTTP_URL, url):
        report(path, f"{hidden(url)}: expected an http:// or https:// URL")


def _check_http(options: Mapping[str, Any], path: Path, report: Report) -> None:
    if options["url"]:
        _check_url(options["url"], (*path, "url"), report)
    if options["body"] is not None and options["json"] is not None:
        report((*path, "json"), "expected either body or json")
    if options["expect_json"] is not None and not isinstance(options["expect_json"], Mapping):
        report((*path, "expect_json"), f"expected a mapping, not {hidden(options['expect_json'])}")
    if not isinstance(options["verify"], (bool, str)):
        report((*path, "verify"), f"expected true, false or a file, not {hidden(options['verify'])}")


def _check_content(options: Mapping[str, Any], path: Path, report: Report) -> None:
    url = options["url"]
    is_other = options["folder"] is not None or (isinstance(url, str) and not url.startswith(POSTGRESQL))
    if options["content"] is BackupContent.GLOBALS and is_other:
        report((*path, "content"), "only a PostgreSQL server has globals")


def _check_sql(options: Mapping[str, Any], path: Path, report: Report) -> None:
    if (options["statement"] is None) == (options["file"] is None):
        report(path, "expected either statement or file")
