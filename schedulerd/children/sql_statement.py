"""`python -m schedulerd.children.sql_statement`: the same as `python -m schedulerd.actions.programs.sql_statement`."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("schedulerd.actions.programs.sql_statement", run_name="__main__", alter_sys=True)
