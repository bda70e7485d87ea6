"""Triggers: pure rules that compute the occurrences of a job."""
