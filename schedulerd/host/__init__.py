"""The Linux host: files and who may change them, locks, users, limits, control groups, and the service manager."""
