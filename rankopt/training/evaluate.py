"""Scoring a trained model: logits in length order, without padding waste."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from rankopt.tasks.encode import Encoded, collate
from rankopt.training.model import Adapted


@torch.no_grad()
def predict(
    adapted: Adapted, data: Encoded, batch_size: int, precision: str, on_batch: Callable[[], None] = lambda: None
) -> NDArray[np.float32]:
    """The model's logits for every example, `(n, outputs)`, in the order of the data.

    Args:
        adapted: the model as it stands, with whatever pattern is applied.
        data: encoded examples.
        batch_size: examples per forward pass; batches hold examples of similar length.
        precision: "fp32" or "bf16" autocast.
        on_batch: called after every batch.
    Raises:
        FloatingPointError: an output is not finite: the model diverged.
    """
    net = adapted.net.eval()
    device = next(net.parameters()).device
    order = np.argsort(data.lengths, kind="stable")
    chunks = []
    for start in range(0, len(order), batch_size):
        batch = collate([data[int(i)] for i in order[start : start + batch_size]], adapted.tokenizer)
        batch.pop("labels")
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            chunks.append(net(**{key: value.to(device) for key, value in batch.items()}).logits.float().cpu())
        on_batch()
    logits: NDArray[np.float32] = torch.cat(chunks).numpy()
    if not np.isfinite(logits).all():
        raise FloatingPointError(f"the trained model's outputs are not finite for {len(data)} held-out examples")
    return logits[np.argsort(order, kind="stable")]
