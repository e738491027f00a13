"""The Hugging Face hub, where it cannot be reached."""

from __future__ import annotations

from functools import cache

SECONDS = 10.0
"""How long the hub may take to answer."""


@cache
def read_cache_if_unreachable() -> None:
    """Read hub files from the local cache alone for the rest of the process if the hub does not answer.

    Otherwise huggingface_hub repeats each of a model's many requests five times, which takes minutes.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # huggingface_hub has changed its HTTP client, and each client has errors of its own
        constants.HF_HUB_OFFLINE = True
