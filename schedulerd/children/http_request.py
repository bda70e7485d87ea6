"""`python -m schedulerd.children.http_request`: the same as `python -m schedulerd.actions.programs.http_request`."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("schedulerd.actions.programs.http_request", run_name="__main__", alter_sys=True)
