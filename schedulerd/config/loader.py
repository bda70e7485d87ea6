"""Loads a configuration: from YAML files to a checked `Config`. All mistakes of all files are reported together."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Mapping
from typing import Any

from ..core.errors import ConfigError
from ..core.models import Secret
from ..core.text import did_you_mean, hidden
from ..triggers.spans import Calendar
from .action_reader import OwnData
from .api_reader import read_api
from .calendar_files import CalendarFileError, read_calendar
from .composites import Section
from .config import Config
from .fields import Report
from .files import Files
from .includes import included_files
from .job_reader import JobReader, checked_zone
from .policy_reader import limits_of
from .problem_list import ProblemList, TooManyMistakesError
from .resolver import Resolver
from .settings import INCLUDED, TOP, IncludeErrors, OnStop
from .settings_actions import POSTGRESQL, SOURCE_SCHEMES
from .yaml import MOST_VALUES, MOST_VALUES_OF_ALL, Document


def load(path: str, files: Files | None = None) -> Config:
    """Return the configuration of the file at `path` and of the files that it includes.

    `files` contains afterwards what was read. When it is a copy, the disk is not read. Raise ConfigError with every problem
    of all files.
    """
    loader = _Loader(os.path.abspath(path), files or Files())
    was_enabled = gc.isenabled()
    gc.disable()  # all objects created here are kept, so searching them for garbage costs as much as reading the files
    try:
        return loader.load()
    except TooManyMistakesError as error:
        raise ConfigError([*loader.problems.mistakes, *error.problems]) from None
    finally:
        if was_enabled:
            gc.enable()


class _Loader:
    """Loads one configuration."""

    def __init__(self, path: str, files: Files) -> None:
        self.problems = ProblemList()
        self._path = path
        self._files = files
        self._resolver = Resolver(os.path.dirname(path))
        self._value_count = 0  # of all files
        self._included: set[str] = set()
        self._is_incomplete = False  # the jobs of an included file could not be read

    def load(self) -> Config:
        """Return the configuration. Raise ConfigError."""
        document = self._document(self._path)
        report, warn = self.problems.reporter(document), self.problems.warner(document)
        value = document.value if isinstance(document.value, Mapping) else {}
        if not isinstance(document.value, Mapping):
            report((), f"expected a mapping with jobs:, not {hidden(document.value)}")
        top = Section(TOP).read({key: each for key, each in value.items() if key != "jobs"}, (), report)
        sources = {name: self._resolver.database(url) for name, url in top["sources"].items()}
        own = self._own_data(top, report)
        top["timezone"] = checked_zone(top["timezone"], ("timezone",), report)
        jobs = JobReader(
            problems=self.problems, resolver=self._resolver, sources=sources, own=own, pools=limits_of(top["pools"]),
            calendars=self._calendars(top["calendars"], report), node=socket.gethostname(), is_copy=self._files.is_copy,
        )  # fmt: skip
        defaults = jobs.defaults_of_main_file(value, top["timezone"], report)
        jobs.read(document, value.get("jobs", {}), defaults)
        for path in included_files(top["include"], self._files, self._resolver, report, warn):
            self._included.add(path)
            self._read_included(path, jobs, defaults)
        api = read_api(top, self._resolver, report, warn)
        _check_sources(sources, report)
        is_lenient = top["include_errors"] is IncludeErrors.SKIP
        jobs.link(may_lack_jobs=is_lenient and self._is_incomplete)
        mistakes = sorted(self.problems.mistakes, key=lambda each: (each.file, each.line, each.column))
        files = {each.file for each in mistakes}
        if mistakes and not (is_lenient and files <= self._included - {self._path}):
            raise ConfigError(mistakes)
        mistakes += jobs.leave_out(files)
        return Config(
            path=self._path, timezone=top["timezone"], state_dir=own.state_dir, store=own.store, store_schema=own.schema,
            outage_journal_bytes=top["outage_journal"], seats=top["seats"],
            catch_up_spread_seconds=top["catch_up_spread"], shutdown_grace_seconds=top["shutdown_grace"],
            leaves_running=top["on_stop"] is OnStop.LEAVE, sources=sources, api=api, jobs=jobs.jobs,
            warnings=tuple(self.problems.warnings), skipped=tuple(mistakes), pools=limits_of(top["pools"]),
        )  # fmt: skip

    def _document(self, path: str) -> Document:
        left = MOST_VALUES_OF_ALL - self._value_count
        document = Document(path, self._files.yaml(path), min(left, MOST_VALUES))
        self._value_count += document.count
        self.problems.problems += document.problems
        return document

    def _own_data(self, top: Mapping[str, Any], report: Report) -> OwnData:
        """Return where schedulerd stores its own data."""
        state_dir, store = self._resolver.path(top["state_dir"]), top["store"]
        if store and not isinstance(store, Secret) and not store.startswith(("sqlite:///", *POSTGRESQL)):
            report(("store",), f"{hidden(store)}: expected sqlite:///PATH or a postgresql:// URL")
        url = self._resolver.database(store or "sqlite://" + os.path.join(state_dir, "history.db"))
        return OwnData(state_dir, url, top["store_schema"])

    def _calendars(self, given: Mapping[str, str], report: Report) -> dict[str, Calendar]:
        found = {}
        for name, path in given.items():
            try:
                found[name] = read_calendar(name, self._resolver.path(path), self._files)
            except CalendarFileError as error:
                report(("calendars", name), str(error))
                found[name] = Calendar(name, ())  # so that no job that uses it has a mistake of its own
        return found

    def _read_included(self, path: str, jobs: JobReader, defaults: Mapping[str, Any]) -> None:
        try:
            document = self._document(path)
            if document.value is not None:
                self._read_sections(document, jobs, defaults)
        except ConfigError as error:
            self.problems.problems += error.problems
            self._is_incomplete = True

    def _read_sections(self, document: Document, jobs: JobReader, defaults: Mapping[str, Any]) -> None:
        """Read `defaults` and `jobs` of an included file."""
        report = self.problems.reporter(document)
        if not isinstance(document.value, Mapping):
            self._is_incomplete = True
            report((), f"expected a mapping with jobs:, not {hidden(document.value)}")
            return
        for key in document.value:
            if key not in INCLUDED:
                hint = "is valid in the main file only" if key in TOP else "is unknown" + did_you_mean(key, INCLUDED)
                report((key,), f"{key!r} {hint}: an included file may contain {' and '.join(INCLUDED)}")
        own = jobs.defaults_of_included_file(document.value, report)
        jobs.read(document, document.value.get("jobs", {}), {**defaults, **own})


def _check_sources(sources: Mapping[str, Any], report: Report) -> None:
    every = tuple(scheme for settings in SOURCE_SCHEMES.values() for schemes in settings.values() for scheme in schemes)
    for name, url in sources.items():
        if isinstance(url, str) and url and not url.startswith(every):
            report(("sources", name), f"{hidden(url)}: expected a URL with one of {', '.join(every)}")
