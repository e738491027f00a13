"""The tensor names of an adapter file: repaired where only one repair is possible, otherwise refused.

PEFT ignores a tensor whose name it does not expect: with a wrong prefix, an adapter loads as the unchanged base model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rankopt.lowrank.files import PREFIX

WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Name parts that torch.compile, FSDP and activation checkpointing insert; no model has submodules of these names."""

NAME = re.compile(r"(?=.{1,512}$)[\w-]+(\.[\w-]+)*")
FACTOR = re.compile(r"(.+)\.(lora_A|lora_B|lora_E|lora_embedding_A|lora_embedding_B)(\.weight)?")
ATTACHED = re.compile(r"(.+)\.(lora_B\.bias|lora_magnitude_vector(?:\.weight)?|base_layer\..+)")
OF_ADAPTER = tuple(
    re.compile(rf"(?P<before>.+\.{role})\.(?P<adapter>[\w-]+)(?P<after>{after})")
    for role, after in (
        ("lora_[AB]", r"\.weight|\.bias"),
        ("(?:lora_E|lora_embedding_[AB])(?!\\.weight$)", ""),
        ("lora_magnitude_vector(?!\\.weight$)", r"(?:\.weight)?"),
        ("modules_to_save", r"\..+"),
    )
)
"""Names as in a model's state dict, where they contain the adapter's name; PEFT removes it when it saves."""


class TensorNames(NamedTuple):
    """Names as PEFT writes them.

    Attributes:
        stored: name as PEFT writes it -> name in the file.
        repairs: one sentence per kind of repair.
    """

    stored: dict[str, str]
    repairs: tuple[str, ...]


def repaired_names(folder: Path, keys: Iterable[str]) -> TensorNames:
    """The names of a file as PEFT would write them.

    Args:
        folder: of the adapter, for messages.
        keys: names in the file.
    Raises:
        ValueError: a name is malformed, ambiguous, or belongs to another format.
    """
    stored: dict[str, str] = {}
    repairs: dict[str, None] = {}
    adapters: dict[str, None] = {}
    for key in keys:
        if not NAME.fullmatch(key):
            raise ValueError(f"{folder}: a tensor's name must be letters, digits, dots and dashes, got {key[:80]!r}")
        name = key
        for part in WRAPPERS:
            if part in name.split("."):
                name = ".".join(piece for piece in name.split(".") if piece != part)
                repairs[f"removed '{part}.' from tensor names"] = None
        if name.startswith(f"module.{PREFIX}"):
            name = name.removeprefix("module.")
            repairs["removed 'module.' from the beginning of tensor names"] = None
        while name.startswith(2 * PREFIX):
            name = name.removeprefix(PREFIX)
            repairs[f"removed the second '{PREFIX}' from tensor names"] = None
        if not name.startswith((PREFIX, "module.", "base_model.")):
            name = PREFIX + name
            repairs[f"added the missing '{PREFIX}' to tensor names"] = None
        if not name.startswith(PREFIX) or name.startswith(f"{PREFIX}module."):
            raise ValueError(
                f"{folder}: a tensor's name must be {PREFIX!r} and a module of the base model, got {key!r}; its "
                "'module.' or 'base_model.' may belong to a wrapper or to the model: save the adapter from the "
                "unwrapped model"
            )
        for pattern in OF_ADAPTER:
            if found := pattern.fullmatch(name):
                name = found["before"].removesuffix(".modules_to_save") + found["after"]
                adapters[found["adapter"]] = None
        if name in stored:
            raise ValueError(f"{folder}: must have one tensor {name!r}, got {stored[name]!r} and {key!r}")
        stored[name] = key
    if len(adapters) > 1:
        raise ValueError(
            f"{folder}: must hold one adapter, got {' and '.join(map(repr, list(adapters)[:4]))}; save each with "
            "save_pretrained(FOLDER, selected_adapters=[NAME])"
        )
    if adapters:
        repairs[f"removed the adapter's name {next(iter(adapters))!r} from tensor names"] = None
    return TensorNames(stored, tuple(repairs))
