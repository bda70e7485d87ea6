"""`python -m schedulerd.children.backup`: the same as `python -m schedulerd.actions.programs.backup`."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("schedulerd.actions.programs.backup", run_name="__main__", alter_sys=True)
