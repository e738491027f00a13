"""Reading a checkpoint once per process: model, tokenizer, head, and how its batches must be padded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rankopt.core.errors import first_line
from rankopt.core.trial_spec import PRECISIONS, ModelSpec
from rankopt.lowrank.files import AUTO_CLASS
from rankopt.lowrank.quantized import quantized_modules
from rankopt.tasks.embedded import EMBEDDED
from rankopt.tasks.problems.base import Problem
from rankopt.training.base_weights import count_weights, loading_options, prepare_quantized, tolerance
from rankopt.training.device import autocast
from rankopt.training.first_token import keep_first_token
from rankopt.training.hub import read_cache_if_unreachable
from rankopt.training.language_model import prepare_language_model
from rankopt.training.padding import padding_side

UNREADABLE = (OSError, ValueError, KeyError, SafetensorError, StrictDataclassError)


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint as it was read, all of it frozen; the trials of a process share it.

    Attributes:
        net: the model.
        tokenizer: its tokenizer, which pads on a side that changes no logit.
        head: names of the modules trained in full: those outside the backbone, and those that the checkpoint lacks.
        fixed: names of the modules that are neither trained nor adapted: a language model's map to its vocabulary.
        fresh: names of the modules whose weights the checkpoint lacks; every trial initialises them.
        labels: output -> label of the checkpoint's own head; empty where the head is fresh or its labels have no names.
        parameters: number of frozen parameters.
        fingerprint: 16 hex digits of a hash over the names and values of all frozen weights.
        notes: remarks for the reader of a result.
    """

    net: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    fixed: tuple[str, ...]
    fresh: tuple[str, ...]
    labels: Mapping[int, str]
    parameters: int
    fingerprint: str
    notes: tuple[str, ...]


def load_pretrained(spec: ModelSpec, problem: Problem, device: str = "cpu") -> Pretrained:
    """Read a checkpoint as a problem needs it. Models with other heads share the frozen weights.

    Args:
        spec: the model.
        problem: gives the model's class and the number of outputs of its head.
        device: where quantised weights are read to; others are on the CPU until a trial moves them.
    Raises:
        ValueError: one line when model or tokenizer cannot be read, or the model does not suit the problem.
    """
    known, outputs = _known(spec.base), problem.outputs
    if outputs not in known:
        new = _read(spec, problem, device)
        # a hub branch may have moved in the meantime
        if same := next((other for other in known.values() if other.fingerprint == new.fingerprint), None):
            _share(same, new)
        known[outputs] = new
    return known[outputs]


def model_source(name: str) -> str:
    """The folder or hub name that a model's weights come from. An embedded model is trained on first use."""
    if name in EMBEDDED:
        return str(EMBEDDED[name](None))
    if not Path(name).exists():
        read_cache_if_unreachable()
    return name


@lru_cache(maxsize=2)  # one object per process, which is the key of the cached data
def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer. One without a pad token, such as GPT-2's, pads with its end-of-text token.

    Raises:
        ValueError: it cannot be read, or it has no token to pad with.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_source(name), revision=revision)
    except UNREADABLE as error:
        raise unreadable(name, error) from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers returns this for a folder without one
        raise unreadable(name, ValueError("no tokenizer: its vocabulary has no words"))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ValueError(
            f"model.name must be a model whose tokenizer has a pad token or an end-of-text token, got {name!r}; "
            'add a "pad_token" to its tokenizer_config.json'
        )
    return tokenizer


def model_class(problem: Problem, config: Any) -> Any:
    """transformers' class that reads a model for a problem."""
    return getattr(transformers, AUTO_CLASS[problem.task_type(bool(config.is_encoder_decoder))])


def vocabulary_map(net: Any) -> tuple[str, ...]:
    """The name of the linear map from hidden states to the logits of a language model."""
    found = net.get_output_embeddings()
    return tuple(name for name, module in net.named_modules() if module is found)


def head_of(net: nn.Module, missing: set[str]) -> tuple[str, ...]:
    """Names of the modules trained in full: those with weights outside the backbone, and new ones inside it.

    Args:
        net: a transformers model with `base_model_prefix`.
        missing: parameter names that the checkpoint lacks.
    """
    backbone = str(getattr(net, "base_model_prefix", ""))
    outside = [
        name for name, module in net.named_children() if name != backbone and any(True for _ in module.parameters())
    ]
    inside = sorted({key.rpartition(".")[0] for key in missing if key.split(".")[0] not in outside})
    return (*outside, *inside)


def unreadable(name: str, error: Exception) -> ValueError:
    """One line for a model that cannot be read."""
    # the rule that a config violates is below the first line
    what = " ".join(str(error).split()) if isinstance(error, StrictDataclassError) else first_line(error)
    return ValueError(
        f"model.name must be a local folder with config.json, weights and tokenizer, a hub name, "
        f"{' or '.join(map(repr, EMBEDDED))}, got {name!r} ({what})"
    )


def within(key: str, parts: tuple[str, ...]) -> bool:
    """Whether a parameter or module belongs to one of these modules."""
    return any(key == part or key.startswith(part + ".") for part in parts)


@lru_cache(maxsize=1)
def _known(base: ModelSpec) -> dict[int | None, Pretrained]:
    """What this process has read of the checkpoint it works with: number of outputs -> model."""
    return {}


def _share(known: Pretrained, new: Pretrained) -> None:
    """Replace the frozen weights of a model by the equal ones of another."""
    weights = dict(known.net.named_parameters(remove_duplicate=False))
    for old, module in zip(quantized_modules(known.net), quantized_modules(new.net), strict=True):
        vars(module).update({name: value for name, value in vars(old).items() if name == "state"})  # int8's scales
    for key, _ in list(new.net.named_parameters(remove_duplicate=False)):
        if not within(key, new.head):
            module, _, name = key.rpartition(".")
            setattr(new.net.get_submodule(module), name, weights[key])


def _read(spec: ModelSpec, problem: Problem, device: str) -> Pretrained:
    name, revision = spec.name, spec.revision
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(name, revision)
    try:
        config = AutoConfig.from_pretrained(model_source(name), revision=revision)
        if problem.outputs is not None:
            config.num_labels = problem.outputs
        kind = model_class(problem, config)
        net, report = kind.from_pretrained(
            model_source(name),
            revision=revision,
            config=config,
            **loading_options(spec, device, _whole(kind, config) if spec.quantization else ()),
            ignore_mismatched_sizes=True,  # a head with another number of outputs is replaced
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise unreadable(name, error) from None
    for key, found, expected in sorted(report["mismatched_keys"]):
        if key.startswith(f"{net.base_model_prefix}."):
            raise unreadable(name, ValueError(f"{key} has shape {tuple(found)}, its config says {tuple(expected)}"))
    notes = []
    if net.config.get_text_config().pad_token_id is None:
        notes.append(
            f"pad_token_id was not set: batches are padded with {tokenizer.pad_token!r}, and the adapter's config.json "
            f"has pad_token_id {tokenizer.pad_token_id}"
        )
    net.config.pad_token_id = net.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    lacking = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    head, fixed = head_of(net, set(report["missing_keys"])), tuple[str, ...]()
    prepare_quantized(net)
    rounding, precision = tolerance(spec), PRECISIONS[spec.dtype]
    for part in head if problem.outputs is not None else ():
        net.get_submodule(part).float()  # it is trained
    if problem.outputs is None:
        if lacking:
            raise unreadable(name, ValueError(f"it is not a language model: its weights lack {min(lacking)}"))
        head, fixed = (), vocabulary_map(net)
        with autocast(net.device.type, precision):
            prepare_language_model(net, tokenizer, name, rounding)
    frozen = {key: value for key, value in net.state_dict().items() if not within(key, head)}
    parameters = count_weights(net, frozen)
    fresh = tuple(sorted({key.rpartition(".")[0] for key in lacking}))
    labels: dict[int, str] = {}
    if problem.outputs is not None:
        labels = {} if any(within(part, head) for part in fresh) else _named_labels(net.config.id2label)
        with autocast(net.device.type, precision):
            side = padding_side(net, head, tokenizer, rounding)
            keep_first_token(net, head, rounding)
        if side != tokenizer.padding_side:
            notes.append(f"batches are padded on the {side}: the tokenizer's side changes this model's outputs")
            tokenizer.padding_side = side
    net.requires_grad_(False)
    return Pretrained(net, tokenizer, head, fixed, fresh, labels, parameters, _fingerprint(frozen), tuple(notes))


def _whole(kind: Any, config: Any) -> tuple[str, ...]:
    """Names of the modules that are never quantised: the trained head, and the map to the vocabulary."""
    with torch.device("meta"):
        bare = kind.from_config(config)
    return (*head_of(bare, set()), *vocabulary_map(bare))


def _named_labels(labels: Mapping[int, str]) -> dict[int, str]:
    """A config's labels, without transformers' placeholders."""
    return {} if all(name == f"LABEL_{index}" for index, name in labels.items()) else dict(labels)


def _fingerprint(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
