"""Sets of small numbers as the bits of an integer."""

from __future__ import annotations


def lowest_bit(mask: int) -> int:
    """Return the lowest number in a set that is not empty."""
    return (mask & -mask).bit_length() - 1


def bits_below(mask: int, bit: int) -> int:
    """Return how many numbers in a set are below `bit`."""
    return (mask & (1 << bit) - 1).bit_count()
