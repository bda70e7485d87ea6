"""`python -m schedulerd.children.restore_drill`: the same as `python -m schedulerd.actions.programs.restore_drill`."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("schedulerd.actions.programs.restore_drill", run_name="__main__", alter_sys=True)
