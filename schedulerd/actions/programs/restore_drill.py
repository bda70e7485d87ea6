"""Program of the action `restore_drill`: restores the newest backup of a job to a scratch place and checks it."""

from __future__ import annotations

from ...backups.drill import drill
from ...core.clock import SystemClock
from ...core.errors import SchedulerdError
from ...core.units import counted, format_duration
from . import clean_up_on_sigterm, fail, order, report


def main() -> None:
    """Run the drill and report the result."""
    given = order()
    clean_up_on_sigterm()
    try:
        proven = drill(given, SystemClock())
    except SchedulerdError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or given['directory']}: {error.strerror}")
    name, count = proven.manifest.filename, len(given["assertions"])
    held = f", {counted(count, 'assertion')} {'holds' if count == 1 else 'hold'}" if count else "; no assertions were asked"
    report(
        records_processed=1,
        message=f"{name} was restored in {format_duration(proven.seconds)}{held}",
        details={"filename": name, "seconds": proven.seconds, "assertions": count},
    )


if __name__ == "__main__":
    main()
