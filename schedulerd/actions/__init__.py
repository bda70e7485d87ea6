"""Actions: what a job does, either as a child process or as a function of schedulerd."""
