"""Backups: making, verifying and restoring them, and the catalogue of each folder.

The catalogue is the folder itself. The manifest of each backup, `FILENAME.json`, is beside it. It is still available after
the history has been lost.
"""
