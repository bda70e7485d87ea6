"""The former place of `host/cgroups.py`: a unit of an older package calls it until systemd has read the new unit."""

from __future__ import annotations

import sys

from .host.cgroups import main

if __name__ == "__main__":
    sys.exit(main())
