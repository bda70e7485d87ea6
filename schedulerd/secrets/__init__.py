"""Secrets: their references, the files they are read from, and masking them wherever text is shown or stored."""
