"""Independent random streams from one seed: every random choice has its own named stream."""

from __future__ import annotations

import hashlib


def stream(seed: int, *names: str | int) -> int:
    """The seed of a named stream: the first 63 bits of the SHA-256 of the seed and the names.

    Streams have no state. A resumed run therefore draws the same numbers as an uninterrupted one, and another layer or
    allocator does not change existing draws (common random numbers).

    Args:
        seed: the trial's seed.
        names: purpose of the stream, for example `"init", "encoder.0.query"` or `"draw", step`.
    Returns:
        An integer in [0, 2**63).
    Example:
        >>> stream(0, "data", 1) == stream(0, "data", 1) != stream(0, "data", 2)
        True
    """
    digest = hashlib.sha256("/".join(str(part) for part in (seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
