"""The settings of the actions `backup` and `restore_drill`, for the table in `config/settings.py`."""

from __future__ import annotations

from enum import StrEnum

from ..backups.retention import KEEP_PERIODS
from .composites import ExactlyOne, ListOf, Option, Section
from .fields import Duration, EnumOf, Integer, Size, Text, TextOrSecret


class BackupContent(StrEnum):
    """What of a PostgreSQL is backed up."""

    DATABASE = "database"
    GLOBALS = "globals"


class Compression(StrEnum):
    """How a backup is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


CIPHERS = ("age", "gpg")

KEEP = Section({name: Option(Integer(0, 100_000), f"how many ({name}) stay") for name in KEEP_PERIODS})
ENCRYPT = ExactlyOne(
    Section({name: Option(ListOf(Text(), at_least=1), f"recipients ({name}), or files with them") for name in CIPHERS}),
    CIPHERS,
)

_BACKUP = Section(
    {
        "source": Option(
            Text(is_secret=True),
            "what is backed up: history (schedulerd's own database), or a source: PostgreSQL, SQLite or Redis",
        ),
        "folder": Option(Text(), "or a folder, which becomes a tar archive"),
        "content": Option(
            EnumOf(BackupContent),
            "of a PostgreSQL: its database, or its globals (roles, …)",
            BackupContent.DATABASE,
        ),
        "exclude": Option(ListOf(Text()), "of a folder: what is left out, as tar's --exclude has it, such as ./cache", ()),
        "directory": Option(Text(), "where the backups go (default: backups in the state directory)"),
        "keep": Option(KEEP, "how many good backups stay; without it, all of them", {}),
        "compress": Option(EnumOf(Compression), "none, gzip or zstd", Compression.NONE),
        "encrypt": Option(ENCRYPT, "for whom it is encrypted: {age: [age1…]} or {gpg: [/etc/schedulerd/backup.pub]}"),
        "min_size": Option(Size(), "a smaller one is odd: it is kept, counts as no good one, and its run fails", 1),
        "max_shrink": Option(Integer(0, 100), "so many percent smaller than the last good one is odd; 100 is no bound", 75),
        "max_age": Option(Duration(), "health is degraded when the last good one is older; 0 is no bound", 0.0),
        "min_free": Option(Size(), "no backup is begun that would leave less free space than this", 100 * 1024**2),
        "pg_bin": Option(Text(), "the folder of pg_dump and pg_restore (default: the job's PATH)"),
    }
)
BACKUP = ExactlyOne(_BACKUP, ("source", "folder"))

RESTORE_DRILL = Section(
    {
        "of": Option(Text(), "the backup job whose newest backup is restored aside", required=True),
        "into": Option(
            TextOrSecret(), "of a PostgreSQL: a source or URL of the server on which a scratch database is made and dropped"
        ),
        "assertions": Option(
            ListOf(Text()), "what must be true of it: SQL, commands of a Redis, or paths that a folder must have", ()
        ),
        "age_identity": Option(Text(), "the file with the key, of a backup that is encrypted to age"),
        "gnupg_home": Option(Text(), "the folder with the key ring, of a backup that is encrypted to gpg"),
        "pg_bin": Option(Text(), "the folder of pg_restore (default: the job's PATH)"),
    }
)
