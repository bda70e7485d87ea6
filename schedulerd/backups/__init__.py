"""Backups: creation, verification and restore, and the catalogue of each folder.

The catalogue is the folder itself. The manifest of each backup, `FILENAME.json`, is beside it. The catalogue remains
available after the history has been lost.
"""
