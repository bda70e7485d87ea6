"""Defaults that the command line shows too: it reads no configuration for most commands, and loads none of its parts."""

DEFAULT_CONFIG = "/etc/schedulerd/config.yaml"
DEFAULT_SCHEMA = "schedulerd"  # of PostgreSQL
SCHEMA_PATTERN = r"(?!pg_)[a-z_][a-z0-9_]{0,62}"  # the names of schemas that are accepted
