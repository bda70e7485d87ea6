"""The operations that a caller can request, each with the role it needs. No HTTP here."""
