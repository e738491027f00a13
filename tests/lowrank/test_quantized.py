"""Quantised base maps: the gated layer compared with its dense equation, and exports with PEFT on the same base."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_models import tiny_config
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from rankopt.lowrank.export import export_peft
from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.quantized import dequantized, quantization_of, quantized_modules, shared_state
from rankopt.lowrank.scale import Scale

bitsandbytes = pytest.importorskip("bitsandbytes")
KINDS = ["nf4", "int8"]
# the error of int8's rounded inputs in evaluation, relative to the largest output; nf4 rounds weights alone
ROUNDING = {"nf4": 1e-5, "int8": 2e-2}
FAN_IN, FAN_OUT = 64, 32


def quantized_map(kind: str, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    plain = nn.Linear(FAN_IN, FAN_OUT, bias)
    made: Any
    if kind == "nf4":
        made = bitsandbytes.nn.Linear4bit(FAN_IN, FAN_OUT, bias, quant_type="nf4", compute_dtype=torch.float32)
    else:
        made = bitsandbytes.nn.Linear8bitLt(FAN_IN, FAN_OUT, bias, has_fp16_weights=False, threshold=6.0)
    made.load_state_dict(plain.state_dict())
    moved: nn.Module = made.to("cpu")
    return moved


def layer_over(kind: str, bias: bool = True) -> LowRankLinear:
    layer = LowRankLinear(quantized_map(kind, bias), 4, Scale("unit", 1.5))  # type: ignore[arg-type]
    layer.open(3)
    for parameter in (layer.A, layer.B, layer.g):
        nn.init.normal_(parameter, std=0.3)
    layer.mask(torch.tensor([True, False, True, True]))
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_equation(kind: str, bias: bool) -> None:
    """Outputs and gradients are those of the dense matrix `W + s B diag(g m) A`, W dequantised."""
    layer, x = layer_over(kind, bias), torch.randn(2, 5, FAN_IN, requires_grad=True)
    assert layer.shape == (FAN_IN, FAN_OUT)
    y = layer(x)
    got = torch.autograd.grad(y.square().sum(), (x, layer.A, layer.B))
    offset = layer.bias if bias else 0
    plain = x @ (layer.dense() + layer.s * (layer.B * layer.g * layer.m) @ layer.A).T + offset
    expected = torch.autograd.grad(plain.square().sum(), (x, layer.A, layer.B))
    for one, other in ((y, plain), *zip(got, expected, strict=True)):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        assert (layer.eval()(x) - plain).abs().max() <= ROUNDING[kind] * plain.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_the_dense_weight(kind: str) -> None:
    """It is close to the one that was quantised, and is what the map multiplies by, before and after a pass."""
    torch.manual_seed(0)
    plain, base = nn.Linear(FAN_IN, FAN_OUT), quantized_map(kind)
    assert quantization_of(base) == kind
    assert quantization_of(plain) is None
    before = dequantized(base)
    x = torch.randn(7, FAN_IN)
    torch.testing.assert_close(base.train()(x), x @ before.T + plain.bias, atol=1e-5, rtol=1e-5)
    assert torch.equal(dequantized(base), before)
    assert 0 < (before - plain.weight).abs().max() < 0.2 * plain.weight.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_merging_is_refused(kind: str) -> None:
    """One line says what to do instead; the layer computes as before."""
    layer, x = layer_over(kind), torch.randn(3, FAN_IN)
    before = layer(x)
    with pytest.raises(ValueError, match=f"cannot be merged into weights of model.quantization '{kind}'.*export") as no:
        layer.merge()
    assert "\n" not in str(no.value)
    assert torch.equal(layer(x), before)


def bytes_of(module: Any) -> set[int]:
    """The addresses of everything that a quantised map holds."""
    held: list[Any] = [module.weight.data]
    if quantization_of(module) == "nf4":
        held += [module.weight.quant_state.absmax, module.weight.quant_state.code]
    else:
        held += [one for one in (module.state.CB, module.state.SCB) if one is not None]
    return {tensor.data_ptr() for tensor in held}


@pytest.mark.parametrize("kind", KINDS)
def test_copies_share_what_is_frozen(kind: str) -> None:
    """Copies hold no quantised weight of their own, whichever runs first, and compute the same."""
    base, x = nn.Sequential(quantized_map(kind)), torch.randn(3, FAN_IN)
    memo = {id(p): p for p in base.parameters()}
    first, second = (copy.deepcopy(base, memo | shared_state(base)) for _ in range(2))
    expected = first(x)
    third = copy.deepcopy(base, memo | shared_state(base))
    for other in (second, third):
        assert torch.equal(other(x), expected)
        assert bytes_of(other[0]) == bytes_of(first[0])


CASES = [("llama", kind) for kind in KINDS] + [("gpt2", "nf4")]


def quantized_model(family: str, kind: str, folder: Path) -> Any:
    config = tiny_config(family, **({"n_embd": 64} if family == "gpt2" else {"hidden_size": 64}), pad_token_id=0)
    if not folder.is_dir():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    how = BitsAndBytesConfig(
        load_in_8bit=kind == "int8", load_in_4bit=kind == "nf4", bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    net = AutoModelForCausalLM.from_pretrained(folder, quantization_config=how, dtype=torch.float32).eval()
    for module in quantized_modules(net):
        module.support_avx512bf16_for_cpu = False  # that kernel fails for fewer than 32 outputs
    return net


@pytest.mark.parametrize(("family", "kind"), CASES)
@torch.no_grad()
def test_peft_computes_the_same_on_the_same_base(family: str, kind: str, tmp_path: Path) -> None:
    """Logits within 1e-5; GPT-2's transposed maps are quantised as ordinary ones."""
    ids = torch.arange(2, 22).view(2, 10)

    def answer(model: Any) -> Tensor:
        logits: Tensor = model(input_ids=ids).logits
        return logits

    model = quantized_model(family, kind, tmp_path / "base")
    packed = len(list(quantized_modules(model)))
    plain = answer(model)
    layers = inject(model, target_names(model, "all-linear", ("lm_head",)), 4, Scale("init", 6.0))
    assert {layer.quantization for layer in layers.values()} == {kind}
    assert packed == len(layers)
    torch.manual_seed(3)
    for index, layer in enumerate(layers.values()):
        layer.open(4)
        for parameter in (layer.A, layer.B, layer.g):
            parameter.normal_(0, 0.1)
        layer.mask(torch.tensor([bool((7 * index + 3) % 16 >> i & 1) for i in range(4)]))
    expected = answer(model)
    assert (expected - plain).abs().max() > 0.01, "the test could not fail"
    export_peft(layers, model, tmp_path / "adapter", base_model=str(tmp_path / "base"), task_type="CAUSAL_LM")
    loaded = PeftModel.from_pretrained(quantized_model(family, kind, tmp_path / "base"), str(tmp_path / "adapter"))
    torch.testing.assert_close(answer(loaded.eval()), expected, atol=1e-5, rtol=1e-5)
