"""The HTTP API: listeners, authentication, routes, requests and responses."""
