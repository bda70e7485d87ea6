"""Reads the jobs of a configuration: each from its settings and the defaults that apply to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import Problem, TriggerError
from ..core.models import Job, Secret
from ..core.text import hidden, shown
from ..core.trigger import Trigger
from ..triggers.blackouts import blackout_from
from ..triggers.events import invalid_dependencies
from ..triggers.factory import trigger_from
from ..triggers.spans import Calendar
from ..triggers.timezones import zone_named
from .action_checks import ActionChecker, paired_drill
from .action_reader import ActionReader, OwnData
from .composites import Section
from .fields import Path, Report, Text
from .policy_reader import policy_of, uses_of
from .problem_list import ProblemList
from .process_reader import process_fields
from .resolver import Resolver
from .settings_actions import ACTIONS
from .settings_jobs import JOB, JOB_ID, JOB_ID_EXPECTED, POLICY
from .settings_triggers import ADJUSTMENTS, TRIGGERS
from .yaml import Document

BOUNDS = ("not_before", "not_after")
MERGED = ("env", "limits")  # settings whose entries in a job are added to those in defaults
_JOB = Section(JOB)
_POLICY = Section(POLICY)
_JOB_ID = Text(JOB_ID, JOB_ID_EXPECTED)


def checked_zone(name: str, path: Path, report: Report) -> str:
    """Return `name`. When there is no such time zone, report that and return UTC."""
    try:
        zone_named(name)
    except ValueError as error:
        report(path, f"{error}: expected a name such as Europe/Rome")
        return "UTC"
    return name


def settings_of(defaults: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a job: its own ones, and `defaults` for the others."""
    value = {**defaults, **read}
    for name in MERGED:
        own = {key: each for key, each in read.get(name, {}).items() if each is not None}
        value[name] = {**defaults[name], **own}
    return value


@dataclass
class JobReader:
    """Reads jobs, file by file, into `jobs`. `origin` has the file of each job, `node` is the name of this host.

    `is_copy`: the configuration was valid before and is read from a copy. What this host lacks now is reported as a
    warning, and makes runs fail.
    """

    problems: ProblemList
    resolver: Resolver
    sources: Mapping[str, str | Secret]
    own: OwnData
    pools: Mapping[str, int]
    calendars: Mapping[str, Calendar]
    node: str
    is_copy: bool
    jobs: dict[str, Job] = field(default_factory=dict)
    origin: dict[str, Document] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._actions = ActionReader(self.resolver, self.sources, self.own)
        self._checker = ActionChecker(self.sources, self.own, self.is_copy)

    def defaults_of_main_file(self, value: Mapping[str, Any], timezone: str, report: Report) -> dict[str, Any]:
        """Return all settings of `defaults`, with built-in values for those that the file does not set."""
        builtin = {name: option.default for name, option in POLICY.items()}
        given = value.get("defaults")  # its mistakes were reported with the rest of the file
        read = _POLICY.read_given(given, (), lambda _path, _text: None) if isinstance(given, Mapping) else {}
        return {**builtin, "timezone": timezone, **self._checked_defaults(read, report)}

    def defaults_of_included_file(self, value: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """Return the settings of `defaults` that an included file sets."""
        given = value.get("defaults")
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            report(("defaults",), f"expected a mapping, not {hidden(given)}")
            return {}
        return self._checked_defaults(_POLICY.read_given(given, ("defaults",), report), report)

    def read(self, document: Document, jobs: Any, defaults: Mapping[str, Any]) -> None:
        """Read the section `jobs` of a file."""
        report = self.problems.reporter(document)
        if jobs is None:
            return
        if not isinstance(jobs, Mapping):
            report(("jobs",), f"expected a mapping of jobs by id, not {hidden(jobs)}")
            return
        for job_id, given in jobs.items():
            _JOB_ID.read(job_id, ("jobs", job_id), report)
            if job_id in self.jobs:
                first = self.origin[job_id].problem(("jobs", job_id), "")
                report(("jobs", job_id), f"duplicate job {job_id!r}: already defined in {first.file}:{first.line}")
            elif isinstance(given, Mapping):
                self.origin[job_id] = document
                self.jobs[job_id] = self._job(job_id, given, defaults, report)
            else:
                report(("jobs", job_id), f"expected a mapping with an action, not {hidden(given)}")

    def link(self, *, may_lack_jobs: bool) -> None:
        """Check the dependencies between the jobs, and complete each restore drill with the settings of its backup job.

        When it `may_lack_jobs`, since a file could not be read, jobs that are missing are not reported.
        """
        self._check_dependencies(may_lack_jobs)
        for job_id, job in self.jobs.items():
            is_left_out = may_lack_jobs and job.options.get("of") not in self.jobs
            if job.action == "restore_drill" and not is_left_out:
                report, path = self.problems.reporter(self.origin[job_id]), ("jobs", job_id, "restore_drill")
                self.jobs[job_id] = paired_drill(job, self.jobs, path, report)

    def leave_out(self, files: set[str]) -> list[Problem]:
        """Remove the jobs of files with mistakes, and the restore drills of backup jobs among them. Return the latter."""
        if not files:
            return []
        left = {job_id: job for job_id, job in self.jobs.items() if self.origin[job_id].path not in files}
        lost = [job_id for job_id, job in left.items() if job.action == "restore_drill" and job.options["of"] not in left]
        self.jobs = {job_id: job for job_id, job in left.items() if job_id not in lost}
        text = "the backup job is left out, and so is this drill"
        return [self.origin[job_id].problem(("jobs", job_id, "restore_drill", "of"), text) for job_id in lost]

    def _check_dependencies(self, may_lack_jobs: bool) -> None:
        triggers = {job_id: job.trigger for job_id, job in self.jobs.items()}
        if may_lack_jobs:
            named = [name for each in triggers.values() if each for after in each.events.after for name in after.jobs]
            triggers = {**dict.fromkeys(named), **triggers}
        for job_id, text in invalid_dependencies(triggers):
            self.problems.reporter(self.origin[job_id])(("jobs", job_id, "after"), text)

    def _job(self, job_id: str, given: Mapping[str, Any], defaults: Mapping[str, Any], report: Report) -> Job:
        path: Path = ("jobs", job_id)
        read = self._resolved(_JOB.read_given(given, path, report), path, report)
        value = settings_of(defaults, read)
        actions = [name for name in ACTIONS if name in given]
        if len(actions) != 1:
            found = f"found {' and '.join(actions)}" if actions else "found none"
            report(path, f"expected exactly one action ({', '.join(ACTIONS)}), {found}")
        action = actions[0] if actions else "command"
        options = self._actions.options(action, read.get(action))
        job = Job(
            job_id=job_id, name=value.get("name") or job_id, description=value.get("description"),
            enabled=value.get("enabled", True), trigger=self._trigger(job_id, read, value, path, report),
            action=action, options=options, timezone=value["timezone"],
            cwd=self.resolver.path(value["cwd"]) if value["cwd"] else None, env=value["env"],
            uses=uses_of(read, self.pools, path, report), **policy_of(value),
            **process_fields(value, options, self.resolver, path, report),
        )  # fmt: skip
        self._checker.check(job, read.get(action), path, report, self.problems.warner(self.origin[job_id]))
        return job

    def _trigger(
        self, job_id: str, read: Mapping[str, Any], value: Mapping[str, Any], path: Path, report: Report
    ) -> Trigger | None:
        """Return the trigger that the job itself names in `read`, with the adjustments in `value`."""
        given = {key: each for key, each in read.items() if key in TRIGGERS or key in BOUNDS}
        given |= {key: value[key] for key in ADJUSTMENTS if value.get(key)}
        try:
            return trigger_from(
                given, value["timezone"], seed=job_id, host=f"{self.node}/{job_id}", calendars=self.calendars
            )
        except TriggerError as error:
            report((*path, *error.loc), f"{shown(error.text)}: {error.why}")
            return None

    def _resolved(self, read: dict[str, Any], path: Path, report: Report) -> dict[str, Any]:
        """Return settings with a valid time zone, and with absolute paths in the secrets of `env`."""
        if "timezone" in read:
            read["timezone"] = checked_zone(read["timezone"], (*path, "timezone"), report)
        if "env" in read:
            read["env"] = {name: self.resolver.secret(value) for name, value in read["env"].items()}
        return read

    def _checked_defaults(self, read: dict[str, Any], report: Report) -> dict[str, Any]:
        """Return defaults without an invalid blackout, so that it is reported once and not for each job."""
        path: Path = ("defaults",)
        read = self._resolved(read, path, report)
        try:
            blackout_from(read.get("blackout"), "UTC", self.calendars)
        except TriggerError as error:
            report((*path, *error.loc), f"{shown(error.text)}: {error.why}")
            del read["blackout"]
        return read
