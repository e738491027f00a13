"""Loading the frozen model, and telling its head from its backbone."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rankopt.core.problems import first_line
from rankopt.core.seeds import stream
from rankopt.core.trial_spec import ModelSpec
from rankopt.lowrank.inject import inject, linear_names, target_names
from rankopt.lowrank.layers import Layers
from rankopt.lowrank.scale import Scale, ScalePolicy
from rankopt.tasks.base import Task
from rankopt.tasks.mini_encoder import encoder_path
from rankopt.training.dropout import use_lean_dropout
from rankopt.training.first_token import keep_first_token

MINI = "mini"
UNREADABLE = (OSError, ValueError, KeyError, SafetensorError, StrictDataclassError)


@dataclass(frozen=True)
class Adapted:
    """A frozen model with its adapters in place.

    Attributes:
        net: the whole model; only the layers' factors and the head are to be trained.
        tokenizer: the model's.
        layers: the adapted layers by name, all components masked.
        head: names of the modules trained in full: those behind the backbone, and any that the checkpoint lacks.
        base_parameters: parameters of the frozen part, adapters excluded.
        head_parameters: parameters of the head.
        fingerprint: 16 hex digits over the names and values of all frozen weights.
    """

    net: nn.Module
    tokenizer: PreTrainedTokenizerBase
    layers: Layers
    head: tuple[str, ...]
    base_parameters: int
    head_parameters: int
    fingerprint: str


def model_source(name: str) -> str:
    """The folder or hub name that a model's weights come from; the embedded encoder is made on first use."""
    return str(encoder_path()) if name == MINI else name


def load_adapted(spec: ModelSpec, policy: ScalePolicy, task: Task, seed: int) -> Adapted:
    """Load a model in float32, freeze it, give it a head, and put adapters in place.

    The head is fresh unless the checkpoint has one of the right size. Its weights are drawn from a stream of their own:
    they are the same for every allocator of a seed.

    Args:
        spec: which model, and where it is adapted.
        policy: scale policy of the adapters.
        task: gives the number of outputs.
        seed: the trial's.
    Raises:
        ValueError: one line when the model or tokenizer cannot be read, or a target matches nothing.
    """
    base = _base(spec.name, spec.revision, task.problem.outputs)
    # everything is copied but the frozen weights, which no trial changes
    net: nn.Module = copy.deepcopy(
        base.net, {id(p): p for name, p in base.net.named_parameters() if not _within(name, base.head)}
    )
    torch.manual_seed(stream(seed, "head"))
    with torch.no_grad():
        for name in base.fresh:
            cast(Any, net)._init_weights(net.get_submodule(name))
    names = target_names(net, spec.target_modules, base.head)
    layers = inject(net, names, spec.max_rank, Scale(policy, spec.alpha), spec.dropout)
    head_parameters = 0
    for part in base.head:
        module = net.get_submodule(part).requires_grad_(True)
        head_parameters += sum(p.numel() for p in module.parameters())
    # before the allocator starts: what it remembers of the factors must lie where they do
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net.to(device)
    if device == "cpu":
        use_lean_dropout(net)
    return Adapted(net, base.tokenizer, layers, base.head, base.parameters, head_parameters, base.fingerprint)


@dataclass(frozen=True)
class Base:
    """A checkpoint as it was read, all of it frozen; shared by the trials of a process.

    Attributes:
        net: the model.
        tokenizer: its tokenizer.
        head: as in `Adapted`.
        fresh: names of the modules whose weights the checkpoint lacks, to be drawn anew by each trial.
        parameters: of the frozen part.
        fingerprint: as in `Adapted`.
    """

    net: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: tuple[str, ...]
    fresh: tuple[str, ...]
    parameters: int
    fingerprint: str


@lru_cache(maxsize=1)
def _bases(name: str, revision: str | None) -> dict[int, Base]:
    """The checkpoint that this process works with: number of outputs -> model, all over one set of frozen weights."""
    return {}


def _base(name: str, revision: str | None, outputs: int) -> Base:
    bases = _bases(name, revision)
    if outputs not in bases:
        base = _read(name, revision, outputs)
        known = next((known for known in bases.values() if known.fingerprint == base.fingerprint), None)
        if known:  # else a branch moved on meanwhile
            _share(known, base)
        bases[outputs] = base
    return bases[outputs]


def _share(known: Base, base: Base) -> None:
    """Put the frozen weights of one model, which are equal, in the place of another's."""
    weights = dict(known.net.named_parameters(remove_duplicate=False))
    for key, _ in list(base.net.named_parameters(remove_duplicate=False)):
        if not _within(key, base.head):
            module, _, name = key.rpartition(".")
            setattr(base.net.get_submodule(module), name, weights[key])


def _read(name: str, revision: str | None, outputs: int) -> Base:
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = load_tokenizer(name, revision)
    try:
        net, report = AutoModelForSequenceClassification.from_pretrained(
            model_source(name),
            revision=revision,
            num_labels=outputs,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # a head for another number of classes
            output_loading_info=True,
        )
    except UNREADABLE as error:
        raise _unreadable(name, error) from None
    for key, found, expected in sorted(report["mismatched_keys"]):
        if key.startswith(f"{net.base_model_prefix}."):
            raise _unreadable(name, ValueError(f"{key} has shape {tuple(found)}, its config says {tuple(expected)}"))
    net.config.pad_token_id = tokenizer.pad_token_id
    lacking = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    head = head_of(net, set(report["missing_keys"]))
    frozen = {key: value for key, value in net.state_dict().items() if not _within(key, head)}
    parameters = sum(value.numel() for value in frozen.values() if value.is_floating_point())
    fresh = tuple(sorted({key.rpartition(".")[0] for key in lacking}))
    keep_first_token(net, head)
    return Base(net.requires_grad_(False), tokenizer, head, fresh, parameters, _fingerprint(frozen))


@lru_cache(maxsize=2)  # one object, by which the data of a process is known
def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer; one without a pad token (GPT-2) pads with its end-of-text token.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model_source(name), revision=revision)
    except UNREADABLE as error:
        raise _unreadable(name, error) from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes of a folder without one
        raise _unreadable(name, ValueError("no tokenizer: its vocabulary holds no words"))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def meta_layers(spec: ModelSpec, policy: ScalePolicy) -> tuple[Layers, int]:
    """Layers without storage, made from the config alone, on which an allocator's start can be tried.

    Returns:
        The layers, and the number of weights in the backbone's linear maps (what a token is multiplied by).
    Raises:
        ValueError: as `load_adapted`.
    """
    net = _skeleton(spec)
    head = head_of(net, set())
    weights = sum(cast(Tensor, net.get_submodule(name).weight).numel() for name in linear_names(net, head))
    return inject(net, target_names(net, spec.target_modules, head), spec.max_rank, Scale(policy, 1.0)), weights


def longest_input(spec: ModelSpec) -> int | None:
    """The most tokens that a model with learned absolute positions can take; None without such a limit."""
    for name, module in _skeleton(spec).named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in ("position_embeddings", "wpe"):
            # RoBERTa and its kin begin to count after the padding index
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def head_of(net: nn.Module, missing: set[str]) -> tuple[str, ...]:
    """Names of the modules trained in full: all outside the backbone that hold weights, and any newly made inside it.

    Args:
        net: a transformers model with `base_model_prefix`.
        missing: parameter names that the checkpoint did not hold.
    """
    backbone = str(getattr(net, "base_model_prefix", ""))
    outside = [
        name for name, module in net.named_children() if name != backbone and any(True for _ in module.parameters())
    ]
    inside = sorted({key.rpartition(".")[0] for key in missing if key.split(".")[0] not in outside})
    return (*outside, *inside)


def _skeleton(spec: ModelSpec) -> nn.Module:
    try:
        config = AutoConfig.from_pretrained(model_source(spec.name), revision=spec.revision)
        with torch.device("meta"):
            net: nn.Module = AutoModelForSequenceClassification.from_config(config)
    except UNREADABLE as error:
        raise _unreadable(spec.name, error) from None
    return net


def _unreadable(name: str, error: Exception) -> ValueError:
    # a wrong config's rule stands below the first line
    what = " ".join(str(error).split()) if isinstance(error, StrictDataclassError) else first_line(error)
    return ValueError(
        f"model.name must be a local folder with config.json, weights and tokenizer, a hub name, or 'mini', "
        f"got {name!r} ({what})"
    )


def _within(key: str, parts: tuple[str, ...]) -> bool:
    return any(key.startswith(part + ".") for part in parts)


def _fingerprint(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(state.items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
