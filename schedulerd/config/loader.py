"""From YAML files to a checked `Config`; every mistake of all files is reported at once, each with its place."""

from __future__ import annotations

import gc
import glob
import grp
import os
import pwd
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import ConfigError, Problem, TriggerError
from ..core.models import Job, Secret
from ..core.proxies import Network
from ..core.text import did_you_mean, hidden, shown
from ..core.trigger import Trigger
from ..triggers.blackouts import blackout_from
from ..triggers.events import invalid_dependencies
from ..triggers.factory import trigger_from
from ..triggers.spans import Calendar
from ..triggers.timezones import zone_named
from .action_reader import ActionReader, settings_of
from .calendar_files import CalendarFileError, read_calendar
from .composites import Section
from .fields import Path, Report, Text
from .files import Files, unreadable
from .policy_reader import limits_of, policy_of, uses_of
from .settings import API, INCLUDED, TOP, IncludeErrors, OnStop
from .settings_actions import ACTIONS, POSTGRESQL, SOURCE_SCHEMES
from .settings_jobs import JOB, JOB_ID, JOB_ID_EXPECTED, POLICY
from .settings_triggers import ADJUSTMENTS, TRIGGERS
from .yaml import MOST_MISTAKES, MOST_VALUES, MOST_VALUES_OF_ALL, Document

# What a reload cannot change
FIXED_AT_START = ("state_dir", "store", "store_schema", "outage_journal_bytes", "seats", "catch_up_spread_seconds", "api")
BOUNDS = ("not_before", "not_after")
_JOB = Section(JOB)
_POLICY = Section(POLICY)
_JOB_ID = Text(JOB_ID, JOB_ID_EXPECTED)


@dataclass(frozen=True)
class Peer:
    """Users or groups on the Unix socket who have a role."""

    role: str
    user: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class ApiSettings:
    """The doors."""

    socket: str
    socket_group: str = "schedulerd"
    peers: tuple[Peer, ...] = ()
    host: str | None = None
    port: int = 0
    allow_plain_remote: bool = False
    hosts: tuple[str, ...] = ()
    trusted_proxy: tuple[Network, ...] = ()


@dataclass(frozen=True)
class Config:
    """A configuration that was found right; `jobs` is in the order of the files."""

    path: str
    timezone: str
    state_dir: str
    store: str | Secret  # a sqlite:// or postgresql:// URL; a secret is one of PostgreSQL
    store_schema: str
    outage_journal_bytes: int
    seats: int
    catch_up_spread_seconds: float
    leaves_running: bool
    shutdown_grace_seconds: float
    sources: Mapping[str, str | Secret]
    api: ApiSettings
    jobs: Mapping[str, Job]
    pools: Mapping[str, int] = field(default_factory=dict)  # how many seats each has
    warnings: tuple[Problem, ...] = field(default=(), compare=False)
    skipped: tuple[Problem, ...] = field(default=(), compare=False)  # mistakes in files that were left out

    @property
    def backup_folders(self) -> dict[str, list[Job]]:
        """Return where backups are, the usual place first, with the jobs that make some there."""
        found: dict[str, list[Job]] = {os.path.join(self.state_dir, "backups"): []}
        for job in self.jobs.values():
            if job.action == "backup":
                found.setdefault(job.options["directory"], []).append(job)
        return found


def load(path: str, files: Files | None = None) -> Config:
    """Read the configuration at `path` with what it includes. Raise ConfigError with every problem of all files.

    `files` has afterwards what was read; when it is a copy, nothing else is.
    """
    loader = _Loader(os.path.abspath(path), files or Files())
    was_enabled = gc.isenabled()
    gc.disable()  # everything that is made here stays: looking for garbage among it costs as much as reading it
    try:
        return loader.load()
    except _EnoughError as error:
        raise ConfigError([*(each for each in loader.problems if not each.is_warning), *error.problems]) from None
    finally:
        if was_enabled:
            gc.enable()


class _EnoughError(ConfigError):
    """There are so many mistakes in a file that looking for more is of no use."""


class _Loader:
    """One loading: collects problems, and turns each file's mapping into jobs."""

    def __init__(self, path: str, files: Files) -> None:
        self.path = path
        self.files = files
        self.problems: list[Problem] = []
        self.jobs: dict[str, Job] = {}
        self.origin: dict[str, Document] = {}
        self.included: set[str] = set()
        self.values = 0  # of all files
        self.skips = False  # included files with mistakes
        self.is_jobless = False  # what jobs there are in an included file, could not be read
        self.sources: dict[str, Any] = {}
        self.actions = ActionReader(self._absolute, self.sources, files.is_copy)
        self.calendars: dict[str, Calendar] = {}
        self.pools: Mapping[str, int] = {}
        self.node = socket.gethostname()
        self.base = os.path.dirname(path)

    def load(self) -> Config:
        document = self._document(self.path)
        report = self._reporter(document)
        value = document.value if isinstance(document.value, Mapping) else {}
        if not isinstance(document.value, Mapping):
            report((), f"the file must be a mapping with jobs:, not {hidden(document.value)}")
        head = {key: each for key, each in value.items() if key != "jobs"}
        top = Section(TOP).read(head, (), report)
        self.sources.update({name: self.actions.source(url) for name, url in top["sources"].items()})
        state_dir = self._absolute(top["state_dir"])
        self.actions.take_places(state_dir, self._store(top["store"], state_dir), top["store_schema"])
        top["timezone"] = self._zone(top["timezone"], ("timezone",), report)
        self.calendars = self._calendars(top["calendars"], report)
        self.pools = limits_of(top["pools"])
        self.skips = top["include_errors"] is IncludeErrors.SKIP
        defaults = self._defaults(value, top["timezone"], report)
        self._read_jobs(document, value.get("jobs", {}), defaults)
        for included in self._included(top["include"], report, self._warner(document)):
            self.included.add(included)
            self._read_included(included, defaults)
        api = self._api(top, document, report)
        self._check_sources(report)
        self._check_after()
        self._pair_drills()
        warnings = tuple(each for each in self.problems if each.is_warning)
        mistakes = [each for each in self.problems if not each.is_warning]
        mistakes.sort(key=lambda each: (each.file, each.line, each.column))
        if mistakes and not (self.skips and {each.file for each in mistakes} <= self.included - {self.path}):
            raise ConfigError(mistakes)
        mistakes += self._leave_out({each.file for each in mistakes})
        return Config(
            path=self.path, timezone=top["timezone"], state_dir=state_dir,
            store=self._store(top["store"], state_dir), store_schema=top["store_schema"],
            outage_journal_bytes=top["outage_journal"], seats=top["seats"],
            catch_up_spread_seconds=top["catch_up_spread"], shutdown_grace_seconds=top["shutdown_grace"],
            leaves_running=top["on_stop"] is OnStop.LEAVE, sources=self.sources, api=api, jobs=self.jobs,
            warnings=warnings, skipped=tuple(mistakes), pools=self.pools,
        )  # fmt: skip

    def _document(self, path: str) -> Document:
        left = MOST_VALUES_OF_ALL - self.values
        document = Document(path, self.files.yaml(path), min(left, MOST_VALUES))
        self.values += document.count
        self.problems += document.problems
        return document

    def _reporter(self, document: Document) -> Report:
        """Return what takes mistakes of a file, and raises _EnoughError after MOST_MISTAKES."""
        told = 0

        def report(path: Path, text: str) -> None:
            nonlocal told
            told += 1
            if told > MOST_MISTAKES:
                raise _EnoughError([document.problem(path, f"more than {MOST_MISTAKES} mistakes: mend the first ones")])
            self.problems.append(document.problem(path, text))

        return report

    def _warner(self, document: Document) -> Report:
        def warn(path: Path, text: str) -> None:
            self.problems.append(document.problem(path, text, is_warning=True))

        return warn

    def _absolute(self, path: str) -> str:
        return re.sub("^//+", "/", os.path.normpath(os.path.join(self.base, os.path.expanduser(path))))

    def _store(self, url: str | Secret | None, state_dir: str) -> str | Secret:
        return self.actions.source(url or "sqlite://" + os.path.join(state_dir, "history.db"))

    def _api(self, top: Mapping[str, Any], document: Document, report: Report) -> ApiSettings:
        given = top["api"] or {name: option.default for name, option in API.items()}
        host, port = None, 0
        if given["listen"]:
            host, _, port_text = given["listen"].rpartition(":")
            host, port = host.strip("[]"), int(port_text) if re.fullmatch("[0-9]{1,5}", port_text) else 0
            if port > 65535:
                report(("api", "listen"), f"there is no port {port}: expected 0 to 65535")
        for index, peer in enumerate(given["peers"]):
            if bool(peer["user"]) == bool(peer["group"]):
                report(("api", "peers", index), "name either a user or a group")
            elif not _is_known(peer):
                path: Path = ("api", "peers", index, "user" if peer["user"] else "group")
                text = f"there is no {path[-1]} {peer['user'] or peer['group']!r} on this host now"
                self.problems.append(document.problem(path, text, is_warning=True))
        store = top["store"]
        if store and not isinstance(store, Secret) and not store.startswith(("sqlite:///", *POSTGRESQL)):
            report(("store",), f"{hidden(store)}: expected sqlite:///PATH or a postgresql:// URL")
        return ApiSettings(
            socket=self._absolute(given["socket"] or os.path.join(top["state_dir"], "schedulerd.sock")),
            socket_group=given["socket_group"], peers=tuple(Peer(**peer) for peer in given["peers"]),
            host=host, port=port, allow_plain_remote=given["allow_plain_remote"], hosts=given["hosts"],
            trusted_proxy=given["trusted_proxy"],
        )  # fmt: skip

    def _calendars(self, given: Mapping[str, str], report: Report) -> dict[str, Calendar]:
        found = {}
        for name, path in given.items():
            try:
                found[name] = read_calendar(name, self._absolute(path), self.files)
            except CalendarFileError as error:
                report(("calendars", name), str(error))
                found[name] = Calendar(name, ())  # so that the jobs that use it have no mistake of their own
        return found

    def _included(self, patterns: tuple[str, ...], report: Report, warn: Report) -> list[str]:
        found: dict[str, None] = {}
        for index, pattern in enumerate(patterns):
            names = self.files.matching(self._absolute(pattern))
            self._look_at_folder(pattern, ("include", index), report, warn)
            if not names and not glob.has_magic(pattern):
                report(("include", index), f"there is no file {pattern!r}")
            found.update(dict.fromkeys(names))
        return list(found)

    def _look_at_folder(self, pattern: str, path: Path, report: Report, warn: Report) -> None:
        """Report a folder that cannot be read, and warn of files in it that look as if they were meant."""
        folder = os.path.dirname(self._absolute(pattern))
        if self.files.is_copy or not glob.has_magic(pattern) or glob.has_magic(folder) or not os.path.isdir(folder):
            return
        try:
            names = os.listdir(folder)
        except OSError as error:
            report(path, f"{folder} {unreadable(error)}")
            return
        left_out = sorted(name for name in names if name.endswith(".yml") and not name.startswith("."))
        if left_out and pattern.endswith("*.yaml"):
            warn(path, f"{', '.join(left_out)} in {folder} is not read: {pattern!r} takes names that end in .yaml")

    def _read_included(self, path: str, defaults: Mapping[str, Any]) -> None:
        try:
            document = self._document(path)
            self._read_rest(document, defaults)
        except ConfigError as error:
            self.problems += error.problems
            self.is_jobless = True

    def _read_rest(self, document: Document, defaults: Mapping[str, Any]) -> None:
        report = self._reporter(document)
        if document.value is None:
            return
        if not isinstance(document.value, Mapping):
            self.is_jobless = True
            report((), f"the file must be a mapping with jobs:, not {hidden(document.value)}")
            return
        for key in document.value:
            if key not in INCLUDED:
                hint = "belongs in the main file" if key in TOP else "is unknown" + did_you_mean(key, INCLUDED)
                report((key,), f"{key!r} {hint}: an included file may have {' and '.join(INCLUDED)}")
        own = self._own_defaults(document.value, report)
        self._read_jobs(document, document.value.get("jobs", {}), {**defaults, **own})

    def _defaults(self, value: Mapping[str, Any], timezone: str, report: Report) -> dict[str, Any]:
        builtin = {name: option.default for name, option in POLICY.items()}
        silent = value.get("defaults")  # its mistakes were reported with the rest of the file
        given = _POLICY.read_given(silent, (), lambda _path, _text: None) if isinstance(silent, Mapping) else {}
        return {
            **builtin,
            "timezone": timezone,
            **self._checked(self._looked_up(given, ("defaults",), report), ("defaults",), report),
        }

    def _own_defaults(self, value: Mapping[str, Any], report: Report) -> dict[str, Any]:
        given = value.get("defaults")
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            report(("defaults",), f"expected a mapping, not {hidden(given)}")
            return {}
        read = self._looked_up(_POLICY.read_given(given, ("defaults",), report), ("defaults",), report)
        return self._checked(read, ("defaults",), report)

    def _looked_up(self, read: dict[str, Any], path: Path, report: Report) -> dict[str, Any]:
        """Return settings that were read, their zone known to exist, and their secrets' files absolute."""
        if "timezone" in read:
            read["timezone"] = self._zone(read["timezone"], (*path, "timezone"), report)
        if "env" in read:
            read["env"] = {name: self.actions.secret(value) for name, value in read["env"].items()}
        return read

    def _checked(self, read: dict[str, Any], path: Path, report: Report) -> dict[str, Any]:
        """Return defaults whose blackout is known to be right, so that a mistake is told once and not for each job."""
        try:
            blackout_from(read.get("blackout"), "UTC", self.calendars)
        except TriggerError as error:
            report((*path, *error.loc), f"{shown(error.text)}: {error.why}")
            del read["blackout"]
        return read

    def _read_jobs(self, document: Document, jobs: Any, defaults: Mapping[str, Any]) -> None:
        report = self._reporter(document)
        if jobs is None:
            return
        if not isinstance(jobs, Mapping):
            report(("jobs",), f"expected a mapping of jobs by id, not {hidden(jobs)}")
            return
        for job_id, given in jobs.items():
            _JOB_ID.read(job_id, ("jobs", job_id), report)
            if job_id in self.jobs:
                first = self.origin[job_id].problem(("jobs", job_id), "")
                report(("jobs", job_id), f"duplicate job {job_id!r}: it stands in {first.file}:{first.line} already")
            elif isinstance(given, Mapping):
                self.origin[job_id] = document
                self.jobs[job_id] = self._job(job_id, given, defaults, report)
            else:
                report(("jobs", job_id), f"expected a mapping with an action, not {hidden(given)}")

    def _job(self, job_id: str, given: Mapping[str, Any], defaults: Mapping[str, Any], report: Report) -> Job:
        path: Path = ("jobs", job_id)
        read = self._looked_up(_JOB.read_given(given, path, report), path, report)
        value = settings_of(defaults, read)
        actions = [name for name in ACTIONS if name in given]
        if len(actions) != 1:
            named = f"it has {' and '.join(actions)}" if actions else "it has none"
            report(path, f"a job needs one action ({', '.join(ACTIONS)}): {named}")
        action = actions[0] if actions else "command"
        options = self.actions.options(action, read.get(action))
        job = Job(
            job_id=job_id, name=value.get("name") or job_id, description=value.get("description"),
            enabled=value.get("enabled", True), trigger=self._trigger(job_id, read, value, path, report),
            action=action, options=options, timezone=value["timezone"],
            cwd=self._absolute(value["cwd"]) if value["cwd"] else None, env=value["env"],
            uses=uses_of(read, self.pools, path, report), **policy_of(value),
            **self.actions.process_fields(value, options, path, report),
        )  # fmt: skip
        self.actions.check(job, read.get(action), path, report, self._warner(self.origin[job_id]))
        return job

    def _trigger(
        self, job_id: str, read: Mapping[str, Any], value: Mapping[str, Any], path: Path, report: Report
    ) -> Trigger | None:
        """Return the trigger of a job, which `read` names and defaults, in `value`, may move."""
        given = {key: each for key, each in read.items() if key in TRIGGERS or key in BOUNDS}
        given |= {key: value[key] for key in ADJUSTMENTS if value.get(key)}
        try:
            return trigger_from(
                given, value["timezone"], seed=job_id, host=f"{self.node}/{job_id}", calendars=self.calendars
            )
        except TriggerError as error:
            report((*path, *error.loc), f"{shown(error.text)}: {error.why}")
            return None

    def _check_after(self) -> None:
        """Report jobs that are to start after jobs that are not there, or in a circle."""
        triggers = {job_id: job.trigger for job_id, job in self.jobs.items()}
        if self.skips and self.is_jobless:  # the others may be there
            named = [name for each in triggers.values() if each for after in each.events.after for name in after.jobs]
            triggers = {**dict.fromkeys(named), **triggers}
        for job_id, text in invalid_dependencies(triggers):
            self._reporter(self.origin[job_id])(("jobs", job_id, "after"), text)

    def _pair_drills(self) -> None:
        """Tell each restore drill where the backups of its job are; report drills of what makes no backups."""
        for job_id, job in self.jobs.items():
            is_left_out = self.skips and self.is_jobless and job.options.get("of") not in self.jobs
            if job.action == "restore_drill" and not is_left_out:
                report, path = self._reporter(self.origin[job_id]), ("jobs", job_id, "restore_drill")
                self.jobs[job_id] = self.actions.paired(job, self.jobs, path, report)

    def _leave_out(self, files: set[str]) -> list[Problem]:
        """Take out the jobs of files with mistakes, and the drills of backups that are made there; return these."""
        if not files:
            return []
        left = {job_id: job for job_id, job in self.jobs.items() if self.origin[job_id].path not in files}
        lost = [job_id for job_id, job in left.items() if job.action == "restore_drill" and job.options["of"] not in left]
        self.jobs = {job_id: job for job_id, job in left.items() if job_id not in lost}
        text = "the job whose backups it restores is left out"
        return [self.origin[job_id].problem(("jobs", job_id, "restore_drill", "of"), text) for job_id in lost]

    @staticmethod
    def _zone(name: str, path: Path, report: Report) -> str:
        """Return `name`, or after reporting that there is no such zone one with which the reading can go on."""
        try:
            zone_named(name)
        except ValueError as error:
            report(path, f"{error}: expected a name such as Europe/Rome")
            return "UTC"
        return name

    def _check_sources(self, report: Report) -> None:
        every = tuple(scheme for kinds in SOURCE_SCHEMES.values() for schemes in kinds.values() for scheme in schemes)
        for name, url in self.sources.items():
            if isinstance(url, str) and url and not url.startswith(every):
                report(("sources", name), f"{hidden(url)}: expected a URL with one of {', '.join(every)}")


def _is_known(peer: Mapping[str, Any]) -> bool:
    """Return whether this host has the user or group of a peer (a number needs no name)."""
    name = peer["user"] or peer["group"]
    look_up = pwd.getpwnam if peer["user"] else grp.getgrnam
    try:
        return name.isdigit() or bool(look_up(name))
    except KeyError:
        return False
