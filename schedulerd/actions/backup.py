"""The actions `backup` and `restore_drill`, which run as child processes (see `programs/`).

As a child process, a backup can be cancelled, timed out, limited and niced together with the processes that it starts. It
can run as another `user`, who may have access without a password, and it outlives a restart of the daemon.
"""

from __future__ import annotations

import os

from ..config.settings_actions import BACKUP_SCHEMES, POSTGRESQL, SQLITE
from ..config.settings_backups import BackupContent
from ..core.errors import StartError
from ..core.models import Job, Run
from ..process.spec import ProcessSpec
from ..secrets.references import resolve
from .helpers import check_trusted, own_program


def prepare_backup(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process spec of a `backup` job. Raise SecretError or StartError."""
    options = job.options
    url = resolve(options["url"]) if options["url"] is not None else ""
    encrypt, recipients = next(iter(options["encrypt"].items()), ("none", ()))
    for each in filter(os.path.isabs, recipients):  # whoever changes it determines who can read the backups
        check_trusted(encrypt, each, job)
    _check_programs(job, "pg_bin")
    order = {
        **{
            name: options[name]
            for name in ("folder", "directory", "keep", "min_size", "max_shrink", "min_free", "pg_bin", "schema")
        },
        "job_id": job.job_id,
        "run_id": run.run_id,
        **options["owner"]._asdict(),
        "timezone": job.timezone,
        "kind": kind_of(job, url),
        "source": label_of(job, url),
        "url": url,
        "exclude": list(options["exclude"]),
        "compress": options["compress"],
        "encrypt": encrypt,
        "recipients": list(recipients),
    }
    return own_program("backup", job, run, output_path, order)


def prepare_restore_drill(job: Job, run: Run, output_path: str) -> ProcessSpec:
    """Return the process spec of a `restore_drill` job. Raise SecretError or StartError."""
    options = job.options
    _check_programs(job, "pg_bin", "gnupg_home", "age_identity")  # gpg.conf names programs that gpg runs
    into = resolve(options["into"]) if options["into"] is not None else ""
    if into and not into.startswith(POSTGRESQL):
        raise StartError("the secret is not a postgresql:// URL")
    order = {
        **{name: options[name] for name in ("of", "directory", "age_identity", "gnupg_home", "pg_bin", "min_free")},
        "job_id": job.job_id,
        "run_id": run.run_id,
        **options["owner"]._asdict(),
        "into": into,
        "assertions": list(options["assertions"]),
    }
    return own_program("restore_drill", job, run, output_path, order)


def _check_programs(job: Job, *settings: str) -> None:
    for name in settings:
        if job.options[name]:
            check_trusted(name, job.options[name], job)


def kind_of(job: Job, url: str) -> str:
    """Return the kind of the source of a backup. Raise StartError when a secret is not the URL of a source."""
    if job.options["folder"] is not None:
        return "folder"
    is_globals = job.options["content"] is BackupContent.GLOBALS
    if url.startswith(POSTGRESQL):
        return "postgresql-globals" if is_globals else "postgresql"
    if not url.startswith(BACKUP_SCHEMES) or is_globals:
        raise StartError(f"the secret is not a {' or '.join(POSTGRESQL if is_globals else BACKUP_SCHEMES)} URL")
    return "sqlite" if url.startswith(SQLITE) else "redis"


def label_of(job: Job, url: str) -> str:
    """Return the label of the source in the file name of a backup, which contains no part of a URL."""
    source, folder = job.options["source"], job.options["folder"]
    if folder is not None:
        return os.path.basename(folder) or "root"
    return source if "://" not in source else kind_of(job, url)
