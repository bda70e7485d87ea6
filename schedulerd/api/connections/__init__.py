"""Connections to the API before a request is handled: admission, limits, and framing."""
