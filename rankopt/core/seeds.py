"""One seed in, independent streams out: every random choice has a name, so no choice moves another."""

from __future__ import annotations

import hashlib


def stream(seed: int, *names: str | int) -> int:
    """The seed of a named stream: the first 63 bits of SHA-256 over the seed and the names.

    Streams are stateless, so a resumed run draws what the uninterrupted one drew, and adding a layer or
    an allocator changes no other draw (common random numbers).

    Args:
        seed: the trial's seed.
        names: what the stream is for, for example `"init", "encoder.0.query"` or `"draw", step`.
    Returns:
        An integer in [0, 2**63).
    Example:
        >>> stream(0, "data", 1) == stream(0, "data", 1) != stream(0, "data", 2)
        True
    """
    digest = hashlib.sha256("/".join(str(part) for part in (seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
