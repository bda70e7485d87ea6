"""The settings of the actions `backup` and `restore_drill`."""

from __future__ import annotations

from enum import StrEnum

from ..backups.retention import KEEP_PERIODS
from .composites import ExactlyOne, ListOf, Option, Section
from .fields import Duration, EnumOf, Integer, Size, Text, TextOrSecret


class BackupContent(StrEnum):
    """The part of a PostgreSQL server that is backed up."""

    DATABASE = "database"
    GLOBALS = "globals"


class Compression(StrEnum):
    """How a backup is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


CIPHERS = ("age", "gpg")

_KEEP_HELP = {
    "last": "The number of the newest good backups that are kept.",
    **{
        name: f"The number of {noun} of which the last good backup is kept."
        for name, noun in zip(KEEP_PERIODS[1:], ("hours", "days", "weeks", "months", "years"), strict=True)
    },
}
KEEP = Section({name: Option(Integer(0, 100_000), text, example="7") for name, text in _KEEP_HELP.items()})
_ENCRYPT = {
    "age": Option(
        ListOf(Text(), at_least=1), "Recipients of age(1), or paths of files with recipients.",
        example="[/etc/schedulerd/backup.recipients]",
    ),
    "gpg": Option(
        ListOf(Text(), at_least=1), "Paths of files with the public keys of the recipients.",
        example="[/etc/schedulerd/backup.pub]",
    ),
}  # fmt: skip
ENCRYPT = ExactlyOne(Section(_ENCRYPT), CIPHERS)

_BACKUP = Section(
    {
        "source": Option(
            Text(is_secret=True),
            "The database: `history` (that of schedulerd), the name of a source, or a PostgreSQL, SQLite or Redis URL.",
            example="main_db",
        ),
        "folder": Option(Text(), "The folder that is backed up as a tar archive, instead of `source`.", example="/srv/data"),
        "content": Option(
            EnumOf(BackupContent),
            "The part of a PostgreSQL server. database: one database. globals: roles and tablespaces.",
            BackupContent.DATABASE,
            example="globals",
        ),
        "exclude": Option(
            ListOf(Text()), "Patterns of --exclude of tar(1): files of the folder that are left out.", (),
            example="[./cache]",
        ),
        "directory": Option(
            Text(), "The folder of the backups (default: backups in the state directory).", example="/var/backups/main"
        ),
        "keep": Option(
            KEEP, "The number of good backups that are kept, by period (default: all backups are kept).", {},
            example="{daily: 7, weekly: 4}",
        ),
        "compress": Option(
            EnumOf(Compression), "The compression of the backup.", Compression.NONE, example="zstd"
        ),
        "encrypt": Option(
            ENCRYPT, "The recipients for whom the backup is encrypted (default: it is not encrypted).",
            example="{gpg: [/etc/schedulerd/backup.pub]}",
        ),
        "min_size": Option(
            Size(), "The smallest plausible size. A run whose backup is smaller fails. The backup is kept, but is not good.",
            1,
            example="10M",
        ),
        "max_shrink": Option(
            Integer(0, 100),
            "By how many percent a backup may be smaller than the last good one. A run whose backup is smaller fails. "
            "100 sets no limit.",
            75,
            example="50",
        ),
        "max_age": Option(
            Duration(), "The age of the last good backup above which health is degraded. 0 sets no limit.", 0.0,
            example="26h",
        ),
        "min_free": Option(
            Size(), "The free space that a backup must leave. Otherwise, it is not started.", 100 * 1024**2, example="5G"
        ),
        "pg_bin": Option(
            Text(), "The folder of pg_dump and pg_restore (default: they are searched in the PATH of the job).",
            example="/usr/lib/postgresql/17/bin",
        ),
    }
)  # fmt: skip
BACKUP = ExactlyOne(_BACKUP, ("source", "folder"))

RESTORE_DRILL = Section(
    {
        "of": Option(
            Text(), "The backup job whose newest backup is restored.", required=True, example="nightly_dump"
        ),
        "into": Option(
            TextOrSecret(),
            "The PostgreSQL server on which a scratch database is created and dropped: the name of a source, or a URL. "
            "Required for a backup of PostgreSQL.",
            example="main_db",
        ),
        "assertions": Option(
            ListOf(Text()),
            "Conditions for the restored data: SQL queries, Redis commands, or paths that must exist in a folder.",
            (),
            example='["SELECT count(*) > 1000 FROM orders"]',
        ),
        "age_identity": Option(
            Text(), "The file with the private key of a backup that is encrypted with age.",
            example="/etc/schedulerd/backup.key",
        ),
        "gnupg_home": Option(
            Text(), "The folder of the key ring of a backup that is encrypted with gpg.", example="/root/.gnupg"
        ),
        "pg_bin": Option(
            Text(), "The folder of pg_restore (default: it is searched in the PATH of the job).",
            example="/usr/lib/postgresql/17/bin",
        ),
    }
)  # fmt: skip
