"""The block of a layer, read from its name, and weights by depth."""

from __future__ import annotations

import pytest

from rankopt.allocators.shared.depth import depth_of, depth_weights


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("bert.encoder.layer.3.output.dense", 3),
        ("h.0.c_attn", 0),
        ("layer10.query", None),
        ("classifier", None),
    ],
)
def test_the_block(name: str, block: int | None) -> None:
    """The first number that stands alone between dots."""
    assert depth_of(name) == block


def test_weights() -> None:
    """Linear in depth, up or down; layers outside the blocks count as the first; one block has one weight."""
    names = ["embed", "l.0.q", "l.1.q", "l.2.q"]
    assert list(depth_weights(names, 5.0).values()) == [1, 1, 3, 5]
    assert list(depth_weights(names, 5.0, down=True).values()) == [5, 5, 3, 1]
    assert depth_weights(["l.4.q", "l.4.v"], 5.0) == {"l.4.q": 1, "l.4.v": 1}
