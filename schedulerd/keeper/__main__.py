"""`python -m schedulerd.keeper`: the same as `python -m schedulerd.process.keeper`."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("schedulerd.process.keeper", run_name="__main__", alter_sys=True)
