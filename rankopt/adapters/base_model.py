"""The base model that an adapter belongs to: loading it, and adding the adapter's updates to its weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from rankopt.adapters.adapter import Adapter, Module
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
HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
"""Where transformers keeps the last map of a classifier; its rows are the labels."""


def load_base(model: str, source: Adapter) -> nn.Module:
    """A base model by transformers' own classes, in its own dtype, in evaluation mode; no code of the hub is run.

    Args:
        model: a folder or a hub id.
        source: tells the class (its task type) and the number of labels (its head).
    Raises:
        ValueError: there is no such model, or transformers does not know it.
    """
    import transformers

    transformers.logging.set_verbosity_error()  # what it would report is refused below, in one line
    transformers.utils.logging.disable_progress_bar()
    rows = [len(source.tensor(key)) for key in source.carried if key.endswith(HEADS)]
    try:
        config = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
        if rows:
            config.num_labels = rows[0]
        named = AUTO.get(source.config.task_type or "") or next(iter(config.architectures or ()), "AutoModel")
        kind = getattr(transformers, named, None)
        known = named in (*AUTO.values(), "AutoModel")
        if not known and not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
            raise ValueError(f"its architecture {named!r} is no model of transformers")
        loaded, report = cast(Any, kind).from_pretrained(
            model,
            config=config,
            dtype="auto",
            trust_remote_code=False,
            ignore_mismatched_sizes=bool(rows),
            output_loading_info=True,
        )
        own = {name for name, _ in carried_weights(source)}
        if lacking := sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])} - own):
            raise ValueError(f"its weights lack {lacking[0]} in the shape that its config asks for")
    except Exception as error:  # transformers has a kind of its own for every kind of damage
        raise ValueError(f"--model must be a model's folder or hub id, got {model!r} ({first_line(error)})") from None
    return cast(nn.Module, loaded.eval())


@torch.no_grad()
def add_updates(source: Adapter, model: nn.Module) -> None:
    """Add every update to the weight it belongs to, and put the tensors that the adapter carries in their places.

        LoRA: W <- W + s B A        DoRA, by rows: W <- m (W + s B A) / |W + s B A|

    Args:
        source: the adapter.
        model: changed in place.
    Raises:
        ValueError: the model lacks a module or has another shape, or shares a weight that only one of its users adapts.
    """
    state = model.state_dict()
    for key, value in carried_weights(source):
        if key not in state or state[key].shape != value.shape:
            has = f"has it as {tuple(state[key].shape)}" if key in state else "lacks it"
            raise ValueError(f"the adapter has a tensor {key!r} of shape {tuple(value.shape)}, this model {has}")
        state[key].copy_(value)
    parts = dict(model.named_modules())
    for name, module in source.modules.items():
        if name not in parts:
            raise ValueError(
                f"the adapter has a module {name!r} that this model lacks{nearest(name, filter(None, parts))}"
            )
        part = parts[name]
        if not isinstance(getattr(part, "weight", None), Tensor) or getattr(part, "groups", 1) != 1:
            raise ValueError(f"{name} of the adapter must be an ungrouped linear map here, got {type(part).__name__}")
        W = weight_matrix(part)
        if W.shape != module.shape[::-1]:
            raise ValueError(f"{name} of the adapter is {tuple(module.shape[::-1])}, in this model {tuple(W.shape)}")
        _refuse_shared(model, name)
        W.copy_(merged_weight(source, module, W))
        for key in module.attached:
            if key.endswith(".lora_B.bias"):
                if not isinstance(part.bias, Tensor):
                    raise ValueError(f"{name} of the adapter has a bias, in this model it has none")
                part.bias.add_((module.scale * source.tensor(key).double()).to(part.bias.dtype))


@torch.no_grad()
def merged_weight(source: Adapter, module: Module, W: Tensor) -> Tensor:
    """A weight with the update added, computed in float64 and rounded once.

    Args:
        source: the adapter.
        module: of it.
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
        raise ValueError(f"{source.folder}: DoRA on an embedding cannot be merged here, got {module.name}")
    length = source.tensor(magnitudes[0]).double().flatten()
    scaled: Tensor = total * (length / total.norm(dim=1))[:, None]
    return scaled


def carried_weights(source: Adapter) -> Iterator[tuple[str, Tensor]]:
    """(name in the base model, tensor) of everything the adapter carries along.

    Raises:
        ValueError: something that has no place in a base model.
    """
    saved = [key for module in source.modules.values() for key in module.attached if ".base_layer." in key]
    for key in (*source.carried, *saved):
        name = key.removeprefix(PREFIX).replace(".base_layer.", ".")
        if "token_adapter" in name or ".lora_" in name:
            raise ValueError(f"{source.folder}: {name!r} cannot be merged into a base model")
        yield name, source.tensor(key)


def weight_matrix(module: nn.Module) -> Tensor:
    """A module's weight as `(out, in)`, a view: embeddings and Conv1D keep theirs transposed."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    if isinstance(module, nn.Embedding) or is_conv1d(module):
        return weight.data.T
    return weight.data.flatten(1)


def _refuse_shared(model: nn.Module, name: str) -> None:
    weight = model.get_submodule(name).weight
    users = [other for other, part in model.named_modules() if getattr(part, "weight", None) is weight]
    if len(users) > 1:
        other = next(user for user in users if user != name)
        raise ValueError(
            f"{name} shares its weight with {other}, and adding the update would change both; save the base model with "
            "tie_word_embeddings false first"
        )
