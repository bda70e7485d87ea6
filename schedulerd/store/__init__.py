"""The store: the ledger of occurrences, which is also the history of runs, in SQLite or PostgreSQL."""
