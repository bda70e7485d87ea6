"""The keeper: one small process that is the parent of all children and outlives the daemon (a shim, like containerd's).

It starts, watches, ends and reaps children. It receives orders over a Unix socket, and writes each end into its journal
before it reports it. It uses the standard library only, and one thread. `process/wire.py` describes the protocol.
"""
