"""A model inside PEFT's: how it is made, which of PEFT's hooks run when, and what is stored."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.core.errors import first_line
from rankopt.lowrank.quantized import quantized_modules
from rankopt.tuners.base import Attached, Host, head_modules

GRADIENT_BATCHES = 8
"""Training batches from which LoRA-GA estimates the gradients of the weights."""

PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Starts of LoRA that leave the frozen weights as they are."""

READING = ("eva", "lora_ga")
"""Starts of LoRA that read training batches."""

BUDGETED = ("ADALORA", "ADAMSS")
"""Types whose documentation asks for `update_and_allocate` after every optimiser step."""


def attach_peft(host: Host, config: Any) -> Attached:
    """Put a model into PEFT's for a configuration.

    Weights are copied first where PEFT may change them (PiSSA subtracts its start from them), because other trials of
    the process share them. A prompt or prefix changes none.

    Args:
        host: the model.
        config: PEFT's configuration; its task, head and base model are set here.
    Raises:
        ValueError: PEFT refuses the configuration for this model.
    """
    from peft import get_peft_model, initialize_lora_eva_weights

    net = host.net
    config.modules_to_save = list(host.head) or None
    config.base_model_name_or_path, config.revision = host.source, host.spec.revision
    earlier = {parameter for parameter in net.parameters() if parameter.requires_grad} - {
        parameter for part in host.head for parameter in net.get_submodule(part).parameters()
    }
    start = getattr(config, "init_lora_weights", None)
    if host.loss is None and start in READING:  # the parameters are only counted
        start = config.init_lora_weights = True
    if start not in (None, *PLAIN_STARTS) and any(quantized_modules(net)):
        raise ValueError(
            f"tuner.config.init_lora_weights must not change quantised weights (model.quantization), got {start!r}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not config.is_prompt_learning:
                _own_weights(net)
            if start == "lora_ga":
                _estimate_gradients(host, config)
            if start == "eva":
                _see_all_tokens(net)
            wrapped: Any = get_peft_model(net, config, low_cpu_mem_usage=start == "eva" or _on_meta(net))
            if start == "eva":
                batches = [{key: value for key, value in batch.items() if key != "labels"} for batch in host.batches()]
                initialize_lora_eva_weights(wrapped, batches, show_progress_bar=False)
    except Exception as error:  # PEFT raises ValueError, TypeError, RuntimeError and others
        raise ValueError(f"tuner.config cannot be used on this model: {first_line(error)}") from error
    for parameter in earlier:  # PEFT freezes whatever it did not add itself
        parameter.requires_grad_(True)
    wrapped.train(net.training)
    own = {id(p) for module in head_modules(wrapped, host.head).values() for p in module.parameters()}
    own |= {id(parameter) for parameter in earlier}
    trained = {name: p for name, p in wrapped.named_parameters() if p.requires_grad and id(p) not in own}
    return AttachedPeft(net=wrapped, parameters=trained, head=host.head, kind=str(config.peft_type.value))


@dataclass(frozen=True, kw_only=True)
class AttachedPeft(Attached):
    """PEFT's model. What is stored is what PEFT saves, without the head."""

    head: tuple[str, ...]
    kind: str

    def stored(self) -> int:
        from peft import get_peft_model_state_dict

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saved = get_peft_model_state_dict(self.net, save_embedding_layers=False)
        head = [t for module in head_modules(self.net, self.head).values() for t in module.state_dict().values()]
        return int(sum(t.numel() for t in saved.values()) - sum(t.numel() for t in head))

    def save(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # an empty model card that names local folders

    def merge(self) -> nn.Module:
        if not hasattr(self.net.base_model, "merge_and_unload"):
            return super().merge()
        net: nn.Module = self.net.merge_and_unload()
        return net

    def penalty(self) -> Tensor | None:
        """AdaLoRA's orthogonality penalty, which PEFT adds only to a loss that the model itself computes.

        w mean over the factors of ||P^T P - I||_F

        Source: `AdaLoraModel.forward` of PEFT.
        """
        if self.kind != "ADALORA":
            return None
        distances = [_from_orthogonal(p if "lora_A" in name else p.T) for name, p in self._factors()]
        weight = self.net.active_peft_config.orth_reg_weight
        return torch.stack(distances).mean() * weight if distances and weight else None

    def after_step(self, step: int) -> None:
        if self.kind in BUDGETED:
            self.net.base_model.update_and_allocate(step)

    def state(self) -> dict[str, Any]:
        if self.kind != "ADALORA":
            return {}
        allocator = self.net.base_model.rankallocator
        return {name: getattr(allocator, name) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")} | {
            "rank_pattern": self.net.active_peft_config.rank_pattern
        }

    def restore(self, state: dict[str, Any]) -> None:
        if state:
            self.net.active_peft_config.rank_pattern = state["rank_pattern"]
            for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
                setattr(self.net.base_model.rankallocator, name, state[name])

    def _factors(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.parameters.items() if "lora_A" in name or "lora_B" in name)


def _from_orthogonal(P: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.norm(P @ P.T - torch.eye(len(P), device=P.device))
    return distance


def _own_weights(net: nn.Module) -> None:
    """Replace the weights of a model by copies, quantised ones excepted; tied ones stay tied."""
    copies = {id(module.weight): module.weight for module in quantized_modules(net)}
    for name, parameter in list(net.named_parameters(remove_duplicate=False)):
        if id(parameter) not in copies:
            copies[id(parameter)] = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        owner, _, last = name.rpartition(".")
        setattr(net.get_submodule(owner), last, copies[id(parameter)])


def _estimate_gradients(host: Host, config: Any) -> None:
    from peft import LoraGAConfig
    from peft.tuners.lora.loraga import preprocess_loraga

    if config.lora_ga_config is None:  # PEFT has a default of its own for EVA alone
        config.lora_ga_config = LoraGAConfig()

    def train_step() -> None:
        for batch in islice(host.batches(), GRADIENT_BATCHES):
            assert host.loss is not None
            host.loss(host.net, batch).backward()  # type: ignore[no-untyped-call]

    preprocess_loraga(host.net, config, train_step)


def _see_all_tokens(net: nn.Module) -> None:
    """Remove the hooks that cut the last block to its first token: EVA reads the inputs of every token."""
    for module in net.modules():
        module._forward_pre_hooks.clear()


def _on_meta(net: nn.Module) -> bool:
    return next(net.parameters()).is_meta
