"""Values, pure rules about time, misfires, concurrency, retries and retention, and helpers without dependencies."""
