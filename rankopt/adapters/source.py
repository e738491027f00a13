"""Where an adapter comes from: a folder, or the hub; never a file outside what was named."""

from __future__ import annotations

import re
from pathlib import Path

from rankopt.lowrank.files import CONFIG, WEIGHTS

PICKLED = "adapter_model.bin"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def locate(source: str | Path) -> Path:
    """The folder of an adapter: a local one, or a snapshot of a hub repository.

    From the hub only `adapter_config.json` and `adapter_model.safetensors` are fetched, and no code.

    Args:
        source: a folder, or `user/repository` where no such folder exists.
    Raises:
        ValueError: neither.
        OSError: the hub cannot be reached.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"an adapter must be a folder, got the file {folder}; name the folder it is in")
    if not HUB_ID.fullmatch(str(source)) or ".." in str(source):
        raise ValueError(
            f"an adapter must be a folder or a hub id (user/repository), got {str(source)!r}: no such folder exists, "
            "and it is no hub id"
        )
    from huggingface_hub import snapshot_download  # slow to import, and only needed here
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(str(source), allow_patterns=[CONFIG, WEIGHTS]))
    except HFValidationError:
        raise ValueError(f"a hub id must be user/repository, got {str(source)!r}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        reason = "the hub cannot be reached; download the adapter first"
        raise OSError(f"no folder is called {str(source)!r}, and {reason}") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no answer")
        reason = f"the hub refuses it ({status}); check its name and your access"
        raise ValueError(f"no folder is called {str(source)!r}, and {reason}") from None
    except OSError as error:
        raise OSError(f"no folder is called {str(source)!r}, and the hub cannot be reached ({error})") from None


def safe_file(folder: Path, name: str) -> Path:
    """A file of an adapter folder, if it is one: an ordinary file that lies in the folder.

    The hub's cache keeps links to `blobs/` beside its snapshots; any other link out of the folder is refused.

    Raises:
        ValueError: missing, no ordinary file, or a link to elsewhere.
    """
    path = folder / name
    if not path.exists():
        raise ValueError(f"{folder}: an adapter must hold {name}, it has none{_hint(folder, name)}")
    real, home = path.resolve(), folder.resolve()
    cache = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(cache)):
        raise ValueError(f"{path}: must lie in its folder, it is a link to {real}")
    if not real.is_file():
        raise ValueError(f"{path}: must be an ordinary file")
    return path


def _hint(folder: Path, name: str) -> str:
    if name != WEIGHTS or not (folder / PICKLED).is_file():
        return ""
    return f"; rankopt convert {folder} --out DIR reads its pickled {PICKLED} without running it"
