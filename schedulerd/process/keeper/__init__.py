"""The keeper: one small process that is the parent of all children, and outlives the daemon.

It starts, watches, ends and reaps them, takes orders over a Unix socket and writes each end into its journal before it
reports it. Standard library only, one thread. `process/spec.py` is the daemon's side of it.
"""
