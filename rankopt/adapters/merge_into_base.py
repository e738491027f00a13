"""Merge an adapter into the weights of its base model."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from rankopt.adapters.adapter import Adapter, read_adapter
from rankopt.adapters.add_updates import add_updates
from rankopt.adapters.base_model import load_base, load_tokenizer
from rankopt.adapters.compress import refuse_base_changes
from rankopt.adapters.verify_merge import verify_merge
from rankopt.adapters.write import Written
from rankopt.core.errors import first_line
from rankopt.core.folders import new_folder


def merge_into_base(adapter: str | Path | Adapter, model: str, out: str | Path) -> Written:
    """Write a base model with an adapter's updates in its weights; loading it needs neither rankopt nor PEFT.

    The weights are computed in float64 and rounded once to the model's dtype. The folder is created only after the
    saved model has been loaded again and compared with base model and adapter.

    Args:
        adapter: a folder, a hub id, or an adapter that was already read.
        model: the base model's folder or hub id.
        out: the folder to make; must not exist.
    Raises:
        ValueError: the adapter and the model do not fit, or the result cannot be stored.
        OSError: the result cannot be written.
    """
    source = read_adapter(adapter)
    refuse_base_changes(source)
    with new_folder(Path(out)) as draft:
        merged: Any = load_base(model, source)
        untied = add_updates(source, merged)
        notes = [*source.repairs]
        tokenizer, found = _tokenizer(model, source, merged.config)
        notes += found
        answer = _answer(merged) if untied else None
        if untied:
            notes.append("input and output embeddings are untied (tie_word_embeddings is false), as in the adapter")
            for config in {id(config): config for config in (merged.config, merged.config.get_text_config())}.values():
                config.tie_word_embeddings = False
        _save(merged, draft)
        kind = type(merged)
        del merged
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        stored = _loaded(kind, draft)
        if answer is not None and not torch.allclose(_answer(stored), answer, rtol=1e-3, atol=1e-3):
            raise ValueError(
                f"{source.folder}: changes a weight that this kind of model cannot untie; load the "
                "adapter with PEFT instead"
            )
        error, norm = verify_merge(source, load_base(model, source), stored, draft)
    return Written(
        Path(out),
        f"{model} with {source.folder.name} merged into it",
        error,
        error / norm if norm else 0.0,
        tuple(notes),
    )


def _save(model: Any, folder: Path) -> None:
    from transformers import AutoConfig

    try:
        model.save_pretrained(folder)
    except SafetensorError as full:  # raised on a full disk
        raise OSError(errno.EIO, f"the model cannot be written ({full})", str(folder)) from full
    if AutoConfig.from_pretrained(folder).num_labels != model.config.num_labels:
        # transformers does not write two labels, its own default, although some classes have another default
        path = folder / "config.json"
        labels = {"id2label": model.config.id2label, "label2id": model.config.label2id}
        path.write_text(json.dumps(json.loads(path.read_text()) | labels, indent=2) + "\n", encoding="utf-8")


def _loaded(kind: Any, folder: Path) -> Any:
    """The merged model as users load it."""
    try:
        return kind.from_pretrained(folder, dtype="auto").eval()
    except Exception as error:  # transformers raises many kinds of errors
        raise OSError(errno.EIO, f"the merged model cannot be loaded ({first_line(error)})", str(folder)) from None


def _tokenizer(model: str, source: Adapter, config: Any) -> tuple[Any, list[str]]:
    """The base model's tokenizer, and remarks. A classifier without a padding token gets one, as it needs it for
    batches."""
    try:
        tokenizer = load_tokenizer(model)
    except ValueError as error:
        return None, [f"no tokenizer was saved, because the base model's cannot be loaded ({error})"]
    if source.config.task_type != "SEQ_CLS" or config.get_text_config().pad_token_id is not None:
        return tokenizer, []
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        return tokenizer, ["neither model nor tokenizer has a padding token: set one before running batches"]
    config.get_text_config().pad_token_id = tokenizer.pad_token_id
    config.pad_token_id = tokenizer.pad_token_id
    return tokenizer, [f"pad_token_id was not set; the merged model pads with {tokenizer.pad_token!r}"]


@torch.no_grad()
def _answer(model: Any) -> Tensor:
    """The model's output on transformers' example inputs."""
    try:
        output: Tensor = model(**model.dummy_inputs)[0]
    except Exception as error:
        raise ValueError(f"the untied model could not be run to check it ({first_line(error)})") from None
    return output.double()
