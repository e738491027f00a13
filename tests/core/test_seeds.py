"""Streams: stateless, named, and independent of each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rankopt.core.seeds import stream

PARTS = st.lists(st.text("abc.01", min_size=1, max_size=6) | st.integers(0, 100), max_size=3)


@given(st.integers(0, 2**31), PARTS)
def test_a_stream_is_a_function_of_its_name(seed: int, parts: list[str | int]) -> None:
    value = stream(seed, *parts)
    assert value == stream(seed, *parts)
    assert 0 <= value < 2**63
    assert stream(seed + 1, *parts) != value
    assert stream(seed, *parts, "more") != value


def test_streams_do_not_collide() -> None:
    """Seed, name and step all count: 2,000 neighbouring streams are all different."""
    streams = {stream(s, name, step) for s in range(10) for name in ("init", "draw") for step in range(100)}
    assert len(streams) == 2000


def test_pinned() -> None:
    """Old results stay reproducible: the streams never change."""
    assert stream(0) == 3456079177858693020
    assert stream(1, "init", "encoder.0.query") == 5045955862410121172
