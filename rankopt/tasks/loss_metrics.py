"""Metrics of token losses: perplexity, bits per byte."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


def mean_loss(losses: Array, counts: Array) -> float:
    """A sum per example over a count per example: `sum(losses) / sum(counts)`.

    Example:
        >>> import numpy as np
        >>> mean_loss(np.array([1.0, 5.0]), np.array([1, 2]))
        2.0
    """
    return float(losses.sum() / counts.sum())


def perplexity(losses: Array, tokens: Array) -> float:
    """`exp` of the mean loss per token, in nats; it cannot be compared between tokenizers.

    Example:
        >>> import numpy as np
        >>> round(perplexity(np.array([3.0]), np.array([3])), 3)
        2.718
    """
    return math.exp(min(mean_loss(losses, tokens), 700.0))  # a diverged model has a finite perplexity


def bits_per_byte(losses: Array, sizes: Array) -> float:
    """The loss in bits over the bytes of the texts in UTF-8; it can be compared between tokenizers.

    Example:
        >>> import numpy as np
        >>> round(bits_per_byte(np.array([math.log(2) * 6]), np.array([3])), 3)
        2.0
    """
    return float(losses.sum() / math.log(2) / max(1, int(sizes.sum())))
