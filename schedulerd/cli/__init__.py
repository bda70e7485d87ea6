"""The command `schedulerctl`."""
