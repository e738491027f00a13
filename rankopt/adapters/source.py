"""Where an adapter is read from: a folder or the hub, never a file outside of it."""

from __future__ import annotations

import re
from pathlib import Path

from rankopt.adapters.foreign_hints import foreign_file
from rankopt.lowrank.files import CONFIG, MODEL_CONFIG, WEIGHTS

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def locate(source: str | Path) -> Path:
    """The folder of an adapter: a local one, or a snapshot of a hub repository.

    From the hub only `adapter_config.json`, `adapter_model.safetensors` and `config.json` are downloaded, never code.

    Args:
        source: a folder, or `user/repository` if no such folder exists.
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
            f"an adapter must be an existing folder or a hub id (user/repository), got {str(source)[:200]!r}"
        )
    from huggingface_hub import snapshot_download  # slow to import, and only needed here
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    missing = f"there is no folder {str(source)!r}"
    try:
        return Path(snapshot_download(str(source), allow_patterns=[CONFIG, WEIGHTS, MODEL_CONFIG]))
    except HFValidationError:
        raise ValueError(f"a hub id must be user/repository, got {str(source)!r}") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        raise OSError(f"{missing}, and the hub cannot be reached; download the adapter first") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no answer")
        raise ValueError(
            f"{missing}, and the hub refused the request ({status}); check the name and your access"
        ) from None
    except OSError as error:
        raise OSError(f"{missing}, and the hub cannot be reached ({error})") from None


def safe_file(folder: Path, name: str) -> Path:
    """The path of a file in an adapter folder, if it is an ordinary file inside that folder.

    The hub's cache stores links to `blobs/` in its snapshots; any other link out of the folder is refused.

    Raises:
        ValueError: missing, not an ordinary file, or a link to somewhere else.
    """
    path = folder / name
    if not path.exists():
        raise ValueError(f"{folder}: an adapter must have {name}, got none{foreign_file(folder, name)}")
    real, home = path.resolve(), folder.resolve()
    cache = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    if not (real.is_relative_to(home) or real.is_relative_to(cache)):
        raise ValueError(f"{path}: must be inside its folder, got a link to {real}")
    if not real.is_file():
        raise ValueError(f"{path}: must be an ordinary file")
    return path
