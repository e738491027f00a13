"""Load the base model of an adapter, and add the adapter's updates to its weights."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rankopt.adapters.adapter import Adapter
from rankopt.adapters.module import Module
from rankopt.core.problems import first_line, nearest
from rankopt.lowrank.files import PREFIX
from rankopt.lowrank.linear import is_conv1d

AUTO = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
}


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
        named = AUTO.get(source.config.task_type or "") or next(iter(config.architectures or ()), "AutoModel")
        kind = getattr(transformers, named, None)
        known = named in (*AUTO.values(), "AutoModel")
        if not known and not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise ValueError(f"transformers has no model class {named!r}")
        if saved:
            config.num_labels = _labels(cast(Any, kind), config, saved)
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


@torch.no_grad()
def add_updates(source: Adapter, model: nn.Module) -> bool:
    """Add every update to its weight, and set the tensors that the adapter carries.

        LoRA: W <- W + s B A        DoRA, by rows: W <- m (W + s B A) / |W + s B A|

    PEFT gives an adapted or saved module a weight of its own. A weight that it shares with another module (tied
    embeddings) is therefore untied first.

    Args:
        source: the adapter.
        model: changed in place.
    Returns:
        Whether weights were untied.
    Raises:
        ValueError: the model lacks a module or has another shape, or a shared weight would get two values.
    """
    saved, state = dict(carried_weights(source)), model.state_dict()
    for name, value in saved.items():
        if name not in state or state[name].shape != value.shape:
            raise ValueError(_misfit(name, value, state.get(name)))
    parts = dict(model.named_modules())
    for name, module in source.modules.items():
        _refuse_misfit(name, module, parts)
    in_place = {name: value for name, value in saved.items() if not _has_own_copy(source, name)}
    for name, value in in_place.items():
        state[name].copy_(value)
    for name, value in in_place.items():
        if not torch.equal(state[name], value.to(state[name])):
            raise ValueError(
                f"{source.folder}: {name} shares its weight with another tensor of the adapter that differs"
            )
    own = [name for name in saved if name not in in_place] + [f"{name}.weight" for name in source.modules]
    untied = _untie(model, own, source)
    state = model.state_dict()
    for name in saved.keys() - in_place.keys():
        state[name].copy_(saved[name])
    for name, module in source.modules.items():
        part = parts[name]
        W = weight_matrix(part)
        W.copy_(merged_weight(source, module, W))
        for key in module.attached:
            if key.endswith(".lora_B.bias"):
                part.bias.add_((module.scale * source.tensor(key).double()).to(part.bias.dtype))
    return untied


@torch.no_grad()
def merged_weight(source: Adapter, module: Module, W: Tensor) -> Tensor:
    """A weight with the update added, computed in float64.

    Args:
        source: the adapter.
        module: one of its modules.
        W: `(out, in)`.
    Returns:
        `(out, in)` in float64.
    """
    A, B = source.factors(module.name)
    total: Tensor = torch.addmm(W.double(), B, A, alpha=module.scale)
    magnitudes = [key for key in module.attached if "lora_magnitude_vector" in key]
    if not magnitudes:
        return total
    if module.kind == "embedding":
        raise ValueError(f"{source.folder}: DoRA on an embedding cannot be merged, got {module.name}")
    length = source.tensor(magnitudes[0]).double().flatten()
    scaled: Tensor = total * (length / total.norm(dim=1))[:, None]
    return scaled


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
        if ".lora_" in name:
            raise ValueError(f"{source.folder}: {name!r} cannot be merged into a base model")
        yield name, source.tensor(key)


def weight_matrix(module: nn.Module) -> Tensor:
    """A module's weight as `(out, in)`, a view; embeddings and Conv1D store theirs transposed."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.Embedding) or is_conv1d(module):
        return weight.data.T
    return weight.data.flatten(1)


def _misfit(name: str, value: Tensor, of_model: Tensor | None) -> str:
    found = "lacks it" if of_model is None else f"has it as {tuple(of_model.shape)}"
    text = f"the adapter has a tensor {name!r} of shape {tuple(value.shape)}, this model {found}"
    if of_model is not None and value.ndim == 2 and len(value) != len(of_model) and value.shape[1] == of_model.shape[1]:
        return (
            f"{text}; if the vocabulary was resized for training, call model.resize_token_embeddings({len(value)}), "
            "save that model and name it"
        )
    return text


def _refuse_misfit(name: str, module: Module, parts: Mapping[str, nn.Module]) -> None:
    if name not in parts:
        raise ValueError(f"the adapter has a module {name!r} that this model lacks{nearest(name, filter(None, parts))}")
    part = parts[name]
    if not isinstance(getattr(part, "weight", None), Tensor) or getattr(part, "groups", 1) != 1:
        raise ValueError(f"{name} of the adapter must be an ungrouped linear map, got {type(part).__name__}")
    W = weight_matrix(part)
    if W.shape != module.shape[::-1]:
        raise ValueError(f"{name} of the adapter is {tuple(module.shape[::-1])}, in this model {tuple(W.shape)}")
    if any(key.endswith(".lora_B.bias") for key in module.attached) and not isinstance(part.bias, Tensor):
        raise ValueError(f"{name} of the adapter has a bias, in this model it has none")


def _has_own_copy(source: Adapter, name: str) -> bool:
    """Whether PEFT gives the module of a tensor its own weights, because it is listed in `modules_to_save`."""
    parts = name.split(".")
    modules = [".".join(parts[:end]) for end in range(1, len(parts))]
    return any(module.endswith(entry) for entry in source.config.modules_to_save or () for module in modules)


def _untie(model: nn.Module, changed: list[str], source: Adapter) -> bool:
    """Give every module its own weight if one of the changed weights is shared."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    shared = {name: group for group in names.values() if len(group) > 1 for name in group}
    touched = [name for name in changed if name in shared]
    if not touched:
        return False
    if source.config.ensure_weight_tying:
        adapted = [name for name in touched if name.removesuffix(".weight") in source.modules]
        if adapted:
            raise ValueError(
                f"{source.folder}: {adapted[0]} is adapted with ensure_weight_tying, which cannot be merged here; load "
                "the adapter with PEFT and call merge_and_unload()"
            )
        return False  # PEFT keeps them equal
    for name in {name for group in shared.values() for name in group[1:]}:
        path, _, attribute = name.rpartition(".")
        module = model.get_submodule(path)
        setattr(module, attribute, nn.Parameter(getattr(module, attribute).detach().clone(), requires_grad=False))
    return True
