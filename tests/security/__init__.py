"""One test for each security line of the project: what an attacker does, and what comes of it."""
