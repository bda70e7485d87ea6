"""schedulerd: a job scheduler for a Linux host."""

__version__ = "0.1.0"
