"""Files of predictions as trials store them, for tests."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray


def npz(labels: NDArray, split: str = "validation", **fields: NDArray) -> bytes:
    """A `predictions.npz` with the trial's own point and another one, whose predictions are all wrong."""
    arrays = {f"labels/{split}": labels}
    for name, values in fields.items():
        arrays |= {f"{name}/budget/{split}": values, f"{name}/mean rank 1/{split}": -values}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def classes(labels: NDArray, hits: NDArray, split: str = "validation") -> bytes:
    """Predictions of two classes that are right where `hits` says so."""
    decided = np.where(hits, labels, 1 - labels)
    return npz(labels, split, logits=np.eye(2, dtype=np.float32)[decided])
