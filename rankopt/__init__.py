"""Experiments for adaptive-rank LoRA: which rank should each layer get, what does it cost, and is it better?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankopt.adapters.compress import compress
    from rankopt.adapters.spectra import spectrum

__all__ = ["__version__", "compress", "spectrum"]
__version__ = "0.1.0"

_ADAPTERS = {"spectrum": "spectra", "compress": "compress"}


def __getattr__(name: str) -> Any:
    """Import the functions for adapters on first use, because torch is slow to import."""
    if name in _ADAPTERS:
        return getattr(import_module(f"rankopt.adapters.{_ADAPTERS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
