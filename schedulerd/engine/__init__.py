"""The engine: plans occurrences, queues, starts and supervises runs, and records their completion."""
