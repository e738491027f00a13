"""How a base model is held: number format, quantisation, attention; and what this machine allows."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from rankopt.core.trial_spec import ModelSpec
from rankopt.lowrank.quantized import quantized_modules
from rankopt.training.device import device_memory

BITS = {"nf4": 4, "int8": 8, "float32": 32, "bfloat16": 16, "float16": 16}
ROUNDED = 0.05
"""Largest relative difference of outputs that counts as rounding where weights have fewer than 32 bits."""


def loading_options(spec: ModelSpec, device: str, whole: Iterable[str]) -> dict[str, Any]:
    """The arguments of `from_pretrained` for a base model.

    Args:
        spec: the model.
        device: where quantised weights go; others are read on the CPU.
        whole: names of the modules that are not quantised.
    """
    options: dict[str, Any] = {"dtype": getattr(torch, spec.dtype)}
    if spec.attention:
        options["attn_implementation"] = spec.attention
    if spec.quantization:
        from transformers import BitsAndBytesConfig

        options["device_map"] = {"": device}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=spec.quantization == "int8",
            load_in_4bit=spec.quantization == "nf4",
            llm_int8_skip_modules=list(whole),
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=options["dtype"],
        )
    return options


def prepare_quantized(net: Any) -> None:
    """Let a quantised model be trained with gated layers, and compute the same in training and in evaluation."""
    net.is_quantized = False  # the Trainer trains a model that says so only with PEFT's adapters
    for module in quantized_modules(net):
        # in evaluation this kernel would reorder the weights, which trials share, and round products to bfloat16; it
        # fails where a map's number of outputs is not a multiple of 32
        module.support_avx512bf16_for_cpu = False


def checkpoint_blocks(net: Any) -> None:
    """Let a model compute the activations of every block again in the backward pass."""
    if hasattr(net, "activation_checkpointing_enable"):
        net.activation_checkpointing_enable()
    else:  # its former name, which warns in newer versions of transformers
        net.gradient_checkpointing_enable({"use_reentrant": False})


def checkpoints_blocks(net: nn.Module) -> bool:
    """Whether `checkpoint_blocks` was called."""
    return any(getattr(module, "gradient_checkpointing", False) for module in net.modules())


def check_base(spec: ModelSpec, precision: str, device: str) -> None:
    """Refuse what a machine or an installation cannot train.

    Args:
        spec: the model.
        precision: of the training.
        device: "cuda", "mps" or "cpu".
    Raises:
        ValueError: one line that says what to change.
    """
    if device == "cpu" and spec.dtype == "float16":
        raise ValueError("model.dtype must be 'float32' or 'bfloat16' on a CPU, got 'float16', which needs a GPU")
    if device == "cpu" and precision == "fp16":
        raise ValueError("training.precision must be 'fp32' or 'bf16' on a CPU, got 'fp16', which needs a GPU")
    if spec.quantization and find_spec("bitsandbytes") is None:
        raise ValueError(
            f"model.quantization {spec.quantization!r} needs the bitsandbytes package: pip install 'rankopt[quantized]'"
        )


def check_memory(spec: ModelSpec, weights: int, linear: int, device: str) -> None:
    """Refuse a base model whose weights alone do not fit on the one GPU that a trial trains on.

    Args:
        spec: the model.
        weights: number of its weights.
        linear: how many of them are in linear maps that can be quantised.
        device: "cuda", "mps" or "cpu".
    Raises:
        ValueError: one line that says what to change.
    """
    most = device_memory(device)
    plain = BITS[spec.dtype]
    needed = (linear * BITS[spec.quantization or spec.dtype] + (weights - linear) * plain) // 8
    if most is None or needed <= most:
        return
    held = " and ".join(filter(None, (spec.dtype, spec.quantization)))
    raise ValueError(
        f"model.name must be a model that fits on one GPU, because a trial does not use several: {spec.name!r} takes "
        f"{needed / 1e9:.1f} GB in {held}, the GPU has {most / 1e9:.1f} GB; set model.quantization: nf4, "
        "model.dtype: bfloat16, or choose a smaller model"
    )


def tolerance(spec: ModelSpec) -> float:
    """The relative difference of two outputs below which they count as equal up to rounding."""
    return ROUNDED if spec.quantization or spec.dtype != "float32" else 1e-3


def count_weights(net: nn.Module, frozen: dict[str, torch.Tensor]) -> int:
    """The number of frozen weights; packed ones count as what they stand for, tied ones once.

    Args:
        net: the model.
        frozen: its frozen part of `state_dict`.
    """
    packed: dict[int, Any] = {id(module): module for module in quantized_modules(net)}
    names = tuple(f"{name}." for name, module in net.named_modules() if id(module) in packed)
    kept = {k: v for k, v in frozen.items() if v.is_floating_point() and not (names and k.startswith(names))}
    dense = sum(value.numel() for value in {value.data_ptr(): value for value in kept.values()}.values())
    bias = sum(0 if module.bias is None else module.bias.numel() for module in packed.values())
    return dense + int(bias) + sum(int(module.in_features * module.out_features) for module in packed.values())
