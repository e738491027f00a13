"""Experiments for adaptive-rank LoRA: which rank should each layer get, what does it cost, and is it better?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankopt.adapters.compress import compress
    from rankopt.adapters.spectra import spectrum
    from rankopt.api.adapt import adapt
    from rankopt.api.adapted_model import AdaptedModel
    from rankopt.api.compare import compare
    from rankopt.api.compress_within import compress_within
    from rankopt.api.evaluate import evaluate
    from rankopt.api.study import Study
    from rankopt.api.suggest import suggest

__all__ = [
    "AdaptedModel",
    "Study",
    "__version__",
    "adapt",
    "compare",
    "compress",
    "compress_within",
    "evaluate",
    "spectrum",
    "suggest",
]
__version__ = "0.1.0"

_HOMES = {
    "adapt": "api.adapt",
    "AdaptedModel": "api.adapted_model",
    "Study": "api.study",
    "compare": "api.compare",
    "compress": "adapters.compress",
    "compress_within": "api.compress_within",
    "evaluate": "api.evaluate",
    "spectrum": "adapters.spectra",
    "suggest": "api.suggest",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, because torch is slow to import."""
    if name in _HOMES:
        return getattr(import_module(f"rankopt.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
