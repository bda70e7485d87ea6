"""Program of the action `backup`: creates a backup."""

from __future__ import annotations

from ...backups.create import CreatedBackup, create
from ...backups.source import Order
from ...core.clock import SystemClock
from ...core.errors import SchedulerdError
from . import clean_up_on_sigterm, fail, order, report


def main() -> None:
    """Create the backup. A suspicious backup is kept, and its run fails so that an operator examines it."""
    given = order()
    clean_up_on_sigterm()
    try:
        made = create(given, SystemClock().now())
    except (SchedulerdError, OSError) as error:
        fail(_error_text(error, given))
    manifest = made.manifest
    if manifest.alarms:
        alarms = "; ".join(manifest.alarms)
        fail(f"{manifest.filename} is kept, and counts as no good one: {alarms}", details=_details(made))
    report(records_processed=1, message=f"{manifest.filename}, {manifest.size_bytes} bytes", details=_details(made))


def _details(made: CreatedBackup) -> dict[str, object]:
    manifest = made.manifest
    found: dict[str, object] = {
        name: getattr(manifest, name) for name in ("filename", "size_bytes", "sha256", "content_size_bytes", "made_with")
    }
    return found | {"expired": list(made.removed), "warnings": list(manifest.warnings), "alarms": list(manifest.alarms)}


def _error_text(error: Exception, given: Order) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or given['directory']}: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    main()
