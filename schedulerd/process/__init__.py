"""Child processes: what to start, the keeper that starts and watches them, their output and results."""
