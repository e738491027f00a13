"""rankopt: which rank should each layer get, what does it cost, and is the fancy strategy really better?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankopt.adapters.compress import compress
    from rankopt.adapters.spectra import spectrum

__all__ = ["__version__", "compress", "spectrum"]
__version__ = "0.1.0"

_ADAPTERS = {"spectrum": "spectra", "compress": "compress"}


def __getattr__(name: str) -> Any:
    """The functions for adapters, imported when they are first asked for: torch is slow to import."""
    if name in _ADAPTERS:
        return getattr(import_module(f"rankopt.adapters.{_ADAPTERS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
