"""The table of embedded models, which are pretrained on first use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rankopt.tasks.mini_decoder import decoder_path
from rankopt.tasks.mini_encoder import Progress, encoder_path

EMBEDDED: dict[str, Callable[[Progress | None], Path]] = {"mini": encoder_path, "mini-decoder": decoder_path}
"""A model's name -> its folder; called with a function that shows the progress of a pretraining, or None."""
