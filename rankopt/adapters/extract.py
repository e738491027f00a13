"""The adapter between two full models: their difference, one weight at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rankopt.adapters.adapter import Adapter
from rankopt.adapters.choose import choose, target_of
from rankopt.adapters.config import LARGEST, AdapterConfig
from rankopt.adapters.module import DTYPES, LARGEST_RANK, Factors, Module
from rankopt.adapters.source import HUB_ID, safe_file
from rankopt.adapters.write import Update, Written, verify, write_adapter, write_summary
from rankopt.core.errors import first_line
from rankopt.core.folders import absent_path, new_folder
from rankopt.core.pattern import Shape
from rankopt.importance.spectral import one_thread
from rankopt.lowrank.files import AUTO_CLASS, PREFIX
from rankopt.lowrank.linear import is_conv1d

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TYPES = {name.removeprefix("AutoModel"): task for task, name in AUTO_CLASS.items()}
"""Ending of a model's class name -> PEFT's task type."""


@dataclass(frozen=True, eq=False)
class Model:
    """A full model on disk, of which one tensor is read at a time.

    Attributes:
        folder: with its config and safetensors files.
        files: tensor name -> file.
        config: transformers' config of it.
    """

    folder: Path
    files: Mapping[str, Path]
    config: Any

    def key(self, name: str, prefix: str) -> str | None:
        """The name in the file, which has the backbone's prefix or not; None without such a tensor."""
        for key in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
            if key in self.files:
                return key
        return None

    def tensor(self, key: str) -> Tensor:
        """One tensor as stored; its file is opened again, so that memory stays that of one tensor."""
        with safe_open(self.files[key], "pt") as file:
            tensor: Tensor = file.get_tensor(key).clone()
        return tensor


@one_thread()
def extract(base: str | Path, tuned: str | Path, out: str | Path, *, uniform: bool = False, **amount: Any) -> Written:
    """Write the LoRA adapter that turns a base model into a fine-tuned one, as well as its size allows.

        W_tuned - W_base = U diag(S) V^T     ->     B = U_r diag(S_r)^(1/2),   A = diag(S_r)^(1/2) V_r^T,   s = 1

    Ranks are chosen over all linear maps by the knapsack of `compress`. Weights are read and decomposed one at a time,
    in single precision. A head outside the backbone is saved whole. Other changed tensors (biases, norms, embeddings)
    are no part of a LoRA adapter and are counted in a note.

    Args:
        base: a folder or hub id with safetensors files.
        tuned: the same architecture after full fine-tuning.
        out: the folder to make; must not exist.
        uniform: use one rank for all modules.
        amount: one of energy (share of the squared norm of all differences), rank, budget (parameters), and ratio (of
            the parameters at full rank).
    Raises:
        ValueError: a model cannot be read, the two do not fit, or they do not differ; one line.
        OSError: the result cannot be written.
    Source: mergekit's extract_lora does the same at one rank.
    """
    absent_path(Path(out))
    target = target_of(uniform, **amount)
    old, new = _read(base), _read(tuned)
    net = _skeleton(new)
    prefix = str(net.base_model_prefix)
    heads = [name for name, part in net.named_children() if name != prefix and hasattr(net, prefix) and _own(part, net)]
    modules, carried, gains = {}, {}, {}
    for name, part in net.named_modules():
        if isinstance(part, nn.Linear) or is_conv1d(part):
            if any(name == head or name.startswith(f"{head}.") for head in heads):
                continue
            if pair := _pair(old, new, f"{name}.weight", prefix):
                S = torch.linalg.svdvals(_difference(pair, part))[:LARGEST_RANK]
                gains[name] = S.double().square().numpy()
                fan_out, fan_in = _oriented(pair[1], part).shape
                modules[name] = Module(
                    name, "linear", Shape(fan_in, fan_out), len(S), 1.0, _factor_dtype(pair[1]), (), {}, ()
                )
    for head in heads:
        for key in new.files:
            if key.startswith(f"{head}."):
                carried[f"{PREFIX}{key}"] = new.tensor(key)
    total = sum(float(values.sum()) for values in gains.values())
    if not total:
        raise ValueError(f"{tuned} must differ from {base} in a linear map, got equal weights")
    choice = choose(modules, gains, target)
    updates = []
    for name, module in modules.items():
        if rank := choice.pattern[name]:
            pair = _pair(old, new, f"{name}.weight", prefix)
            updates.append(Update(module, _factors(pair, net.get_submodule(name), rank), 1.0).rounded())
    config = AdapterConfig(
        peft_type="LORA",
        task_type=next((task for ending, task in TYPES.items() if type(net).__name__.endswith(ending)), None),
        base_model_name_or_path=str(base),
        modules_to_save=heads or None,
        fan_in_fan_out=any(is_conv1d(net.get_submodule(update.module.name)) for update in updates),
    )
    source = Adapter(new.folder, config, modules, tuple(carried), {})
    lost = _not_in_adapter(old, new, modules, prefix, heads)
    notes = (f"{lost} other tensors (biases, norms, embeddings) differ and are not in the adapter",) if lost else ()
    with new_folder(Path(out)) as draft:
        write_adapter(draft, source, updates, carried)
        verify(draft, updates, carried)
        error = (1 - choice.energy) * total
        what = f"{tuned} minus {base}, {choice.parameters:,} parameters, {choice.energy:.3%} of the energy"
        done = Written(Path(out), what, max(0.0, error) ** 0.5, max(0.0, 1 - choice.energy) ** 0.5, notes)
        write_summary(draft, {"extracted": done.what, "error": done.error, "relative_error": done.relative_error})
    return done


def _read(source: str | Path) -> Model:
    """The config and the tensor names of a model."""
    from transformers import AutoConfig

    folder = Path(source)
    if not folder.is_dir():
        if not HUB_ID.fullmatch(str(source)):
            raise ValueError(f"a model must be an existing folder or a hub id (user/repository), got {str(source)!r}")
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors"]))
        except Exception as error:  # the hub's client raises many kinds of errors
            missing = f"there is no folder {str(source)!r}, and the hub gives no such model"
            raise ValueError(f"{missing} ({first_line(error)})") from None
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if (folder / INDEX).is_file():
            shards = json.loads(safe_file(folder, INDEX).read_text(encoding="utf-8")[:LARGEST])["weight_map"]
            files = {key: safe_file(folder, name) for key, name in shards.items() if Path(name).name == name}
        else:
            file = safe_file(folder, WEIGHTS)
            with safe_open(file, "pt") as opened:
                files = dict.fromkeys(opened.keys(), file)
    except (OSError, ValueError, KeyError, SafetensorError, AttributeError) as error:
        raise ValueError(
            f"{source}: must be a model with config.json and safetensors files ({first_line(error)})"
        ) from None
    return Model(folder, files, config)


def _skeleton(model: Model) -> Any:
    """The model's class without weights."""
    import transformers

    name = next(iter(model.config.architectures or ()), "")
    kind = getattr(transformers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(f"{model.folder}: config.json must name a class of transformers (architectures), got {name!r}")
    with torch.device("meta"):
        return kind._from_config(model.config)


def _own(part: nn.Module, net: Any) -> bool:
    """Whether a module outside the backbone is a head with weights of its own, not the map to the vocabulary."""
    return any(True for _ in part.parameters()) and part is not net.get_output_embeddings()


def _pair(old: Model, new: Model, name: str, prefix: str) -> tuple[Tensor, Tensor] | None:
    """A tensor of both models; None if the tuned one has none (a tied weight)."""
    before, after = old.key(name, prefix), new.key(name, prefix)
    if after is None:
        return None
    if before is None:
        raise ValueError(f"{old.folder} must have the weights of {new.folder}, got none for {name}")
    one, other = old.tensor(before), new.tensor(after)
    if one.shape != other.shape:
        got = f"{tuple(one.shape)} and {tuple(other.shape)}"
        raise ValueError(f"{name} must have the same shape in both models, got {got}")
    for folder, tensor in ((old.folder, one), (new.folder, other)):
        if tensor.dtype not in DTYPES.values() or not torch.isfinite(tensor).all():
            raise ValueError(f"{folder}: {name} must hold finite floats of 16, 32 or 64 bits, got {tensor.dtype}")
    return one, other


def _difference(pair: tuple[Tensor, Tensor], part: nn.Module) -> Tensor:
    """`W_tuned - W_base` as `(out, in)`."""
    before, after = pair
    return _oriented((after.double() - before.double()).float(), part)


def _oriented(weight: Tensor, part: nn.Module) -> Tensor:
    return weight.T if is_conv1d(part) else weight


def _factors(pair: tuple[Tensor, Tensor] | None, part: nn.Module, rank: int) -> Factors:
    assert pair is not None
    U, S, V = torch.linalg.svd(_difference(pair, part), full_matrices=False)
    root = S[:rank].sqrt()
    return Factors(root[:, None] * V[:rank], U[:, :rank] * root)


def _factor_dtype(weight: Tensor) -> torch.dtype:
    """Single precision at most, as adapters are stored."""
    return torch.float32 if weight.dtype == torch.float64 else weight.dtype


def _not_in_adapter(old: Model, new: Model, modules: Mapping[str, Module], prefix: str, heads: list[str]) -> int:
    """The number of changed tensors that are neither factors nor saved whole."""

    def others() -> Iterator[tuple[str, str]]:
        known = {f"{name}.weight" for name in modules}
        for key in new.files:
            inside = any(key.startswith(f"{head}.") for head in heads)
            before = old.key(key, prefix)
            if not inside and before is not None and not {key, f"{prefix}.{key}"} & known:
                yield before, key

    return sum(not torch.equal(old.tensor(before), new.tensor(key)) for before, key in others())
