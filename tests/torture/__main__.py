"""`python -m tests.torture`: a campaign; `… soak`: a steady load; `… mutants`: what the judge must see."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.nemeses import ALL
from tests.torture.world import BOOT_FILE

BOOT_ID = "/proc/sys/kernel/random/boot_id"
IS_INSIDE = "SCHEDULERD_TORTURE_INSIDE"
INSIDE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def main() -> int:
    """Return 1 when a fault was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["campaign", "soak", "mutants"], default="campaign")
    parser.add_argument("--seconds", type=float, default=3600.0, help="for how long (3600)")
    parser.add_argument("--seed", type=int, default=7, help="which chance (7)")
    parser.add_argument("--nemeses", default="", help=f"who: {','.join(ALL)} (all that can act here)")
    parser.add_argument("--pairs", action="store_true", help="also two together")
    parser.add_argument(
        "--store", choices=["sqlite", "postgresql"], help="postgresql: both in turn (so a campaign); a soak has sqlite"
    )
    parser.add_argument("--round", type=float, default=20.0, help="seconds of a round (20)")
    parser.add_argument("--rate", type=float, default=80.0, help="occurrences in a second (80)")
    parser.add_argument("--rounds", type=int, default=0, help="at most so many rounds")
    parser.add_argument("--evidence", type=Path, default=Path("torture-evidence"), help="where what was found is kept")
    chosen = parser.parse_args()
    _go_inside()
    if chosen.what == "soak":
        from tests.torture import soak

        return soak.run(chosen)
    if chosen.what == "mutants":
        from tests.torture import mutants

        return mutants.run(chosen)
    return campaign(chosen)


def campaign(chosen: argparse.Namespace) -> int:
    """Run rounds until the time is over."""
    from tests.torture.campaign import Bench, rounds
    from tests.torture.report import table, told

    with_postgres = chosen.store != "sqlite"
    names = [name for name in chosen.nemeses.split(",") if name] or _possible(with_postgres)
    bench = Bench(chosen.evidence.absolute(), with_postgres)
    end, outcomes = time.monotonic() + chosen.seconds, []
    try:
        for plan in rounds(names, chosen.pairs, chosen.round, chosen.rate, chosen.seed):
            if time.monotonic() >= end or (chosen.rounds and len(outcomes) >= chosen.rounds):
                break
            outcomes.append(bench.run(plan))
            print(told(outcomes[-1]), flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        bench.close()
    print(table(outcomes))
    return int(any(outcome.verdict.faults for outcome in outcomes))


def _possible(with_postgres: bool) -> list[str]:
    return [
        name for name, each in ALL.items()
        if name != "none" and (with_postgres or not each.needs_postgres) and (IS_INSIDE in os.environ or not each.needs_disk)
    ]  # fmt: skip


def _go_inside() -> None:
    """Have mounts and process numbers of our own: the boot id can be changed, and nobody's stray signals meet ours.

    Without root, or where it may not, there is neither.
    """
    if os.geteuid() != 0 or IS_INSIDE in os.environ or subprocess.run([*INSIDE, "true"], check=False).returncode:
        return
    boot = Path(tempfile.mkdtemp(prefix="schedulerd-boot-")) / "boot_id"
    boot.write_text(Path(BOOT_ID).read_text())
    env = {**os.environ, IS_INSIDE: "1", BOOT_FILE: str(boot)}
    script = f'mount --bind {boot} {BOOT_ID} && "$@"; status=$?; rm -r {boot.parent}; exit $status'  # sh reaps orphans
    command = [*INSIDE, "sh", "-c", script, "sh", sys.executable, "-m", "tests.torture", *sys.argv[1:]]
    os.execvpe(command[0], command, env)


if __name__ == "__main__":
    sys.exit(main())
