"""Load the base model of an adapter."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rankopt.adapters.adapter import Adapter
from rankopt.core.errors import first_line
from rankopt.lowrank.files import AUTO_CLASS, PREFIX


def load_base(model: str, source: Adapter) -> nn.Module:
    """Load a base model with transformers' own classes, in its own dtype and in evaluation mode; no hub code is run.

    Args:
        model: a folder or a hub id.
        source: the adapter, whose task type gives the class and whose head gives the number of labels.
    Raises:
        ValueError: there is no such model, transformers does not know it, or the adapter has tensors that do not belong
            to a base model.
    """
    import transformers

    transformers.logging.set_verbosity_error()  # its warnings are errors below, in one line
    transformers.utils.logging.disable_progress_bar()
    saved = dict(carried_weights(source))
    try:
        _refuse_unsafe_files(Path(model))
        config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
        named = AUTO_CLASS.get(source.config.task_type or "") or next(iter(config.architectures or ()), "AutoModel")
        kind = getattr(transformers, named, None)
        known = named in (*AUTO_CLASS.values(), "AutoModel")
        if not known and not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise ValueError(f"transformers has no model class {named!r}")
        if saved:
            config.num_labels = _labels(cast(Any, kind), config, saved)
        if names := label_names(source.folder, config.num_labels):
            config.id2label, config.label2id = names, {name: index for index, name in names.items()}
        loaded, report = cast(Any, kind).from_pretrained(
            model,
            config=config,
            dtype="auto",
            trust_remote_code=False,
            ignore_mismatched_sizes=bool(saved),
            output_loading_info=True,
        )
        if lacking := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])} - set(saved)):
            raise ValueError(f"its weights lack {lacking[0]} in the shape that its config requires")
    except pickle.UnpicklingError:
        raise ValueError(
            f"--model must be a model's folder or hub id, got {model!r} (its pickled weights hold other objects than "
            "tensors, or are cut off)"
        ) from None
    except Exception as error:  # transformers raises many kinds of errors for damaged folders
        raise ValueError(f"--model must be a model's folder or hub id, got {model!r} ({first_line(error)})") from None
    return cast(nn.Module, loaded.eval())


def label_names(folder: Path, count: int) -> dict[int, str]:
    """The names of a head's outputs that an adapter's own `config.json` gives; empty unless it names all of them.

    `rankopt export` writes this file, which PEFT does not have.
    """
    path = folder / "config.json"
    if not path.is_file() or path.stat().st_size > 2**20:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["id2label"]
        names = {int(index): name for index, name in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}  # a config of another kind
    whole = sorted(names) == list(range(count)) and all(isinstance(name, str) for name in names.values())
    return names if whole and len(set(names.values())) == count else {}


def load_tokenizer(model: str) -> Any:
    """Load the tokenizer of a base model; no hub code is run.

    Raises:
        ValueError: the reason alone.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except ImportError as error:  # names the package to install
        raise ValueError(first_line(error)) from None
    except (OSError, ValueError):
        raise ValueError("its tokenizer files are missing or cannot be read") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # made by transformers for a folder without a tokenizer
        raise ValueError("its vocabulary has no words")
    return tokenizer


def _refuse_unsafe_files(folder: Path) -> None:
    """Refuse a folder with pipes or devices, or with an index of weights that names files outside of it."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path.name} must be an ordinary file")
        if path.name.endswith(".index.json"):
            shards = json.loads(path.read_text(encoding="utf-8")).get("weight_map", {}).values()
            if outside := [name for name in shards if Path(name).name != name]:
                raise ValueError(f"{path.name} must name files of this folder, got {str(outside[0])[:80]!r}")


def _labels(kind: Any, config: Any, saved: Mapping[str, Tensor]) -> int:
    """The number of labels with which most saved tensors have the model's shapes."""
    build = getattr(kind, "from_config", None) or kind._from_config

    def mismatched() -> set[str]:
        with torch.device("meta"):
            state = build(config).state_dict()
        return {key for key, value in saved.items() if key in state and state[key].shape != value.shape}

    own: int = config.num_labels
    fits = {own: mismatched()}
    for rows in sorted({len(saved[key]) for key in fits[own] if saved[key].ndim}):
        config.num_labels = rows
        fits[rows] = mismatched()
    return min(fits, key=lambda labels: (len(fits[labels]), labels != own))


def carried_weights(source: Adapter) -> Iterator[tuple[str, Tensor]]:
    """(name in the base model, tensor) of every tensor that is not part of an update.

    Raises:
        ValueError: a tensor has no counterpart in a base model.
    """
    saved = [key for module in source.modules.values() for key in module.attached if ".base_layer." in key]
    for key in (*source.carried, *saved):
        name = key.removeprefix(PREFIX).replace(".base_layer.", ".")
        if "token_adapter" in name:
            raise ValueError(
                f"{source.folder}: trainable_token_indices cannot be merged here; load the adapter with PEFT and call "
                "merge_and_unload()"
            )
        plain = name.replace(".modules_to_save.", ".").replace(".original_module.", ".")
        if plain != name and PREFIX + plain in source.stored:
            continue  # PEFT stores trained embeddings up to three times
        if ".lora_" in name or plain != name:
            raise ValueError(f"{source.folder}: {name!r} cannot be merged into a base model")
        yield name, source.tensor(key)
