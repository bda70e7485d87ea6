"""Backups: creating, verifying and restoring them, and the catalogue of each folder."""
