"""Where adapters go, and what they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rankopt.tuners.bottleneck import Kind, insert, sites_of

BERT = "bert.encoder.layer.1"


@pytest.mark.parametrize(
    ("family", "head", "sites"),
    [
        (
            "bert",
            "classifier",
            tuple(f"{BERT}.{part}.dense" for part in ("attention.output", "intermediate", "output")),
        ),
        ("gpt2", "score", ("transformer.h.1.attn.c_proj", "transformer.h.1.mlp.c_fc", "transformer.h.1.mlp.c_proj")),
        (
            "distilbert",
            "classifier",
            tuple(f"distilbert.transformer.layer.1.{part}" for part in ("attention.out_lin", "ffn.lin1", "ffn.lin2")),
        ),
        (
            "llama",
            "score",
            tuple(f"model.layers.1.{part}" for part in ("self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")),
        ),
    ],
)
def test_the_maps_of_a_block_are_found_by_their_shapes(
    family: str, head: str, sites: tuple[str, ...], classifier: Callable[..., Any]
) -> None:
    assert tuple(sites_of(classifier(family), (head,))[-1]) == sites


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be 'adapter'"):
        sites_of(nn.Sequential(nn.Linear(2, 2)), ())


@pytest.mark.parametrize("kind", ["houlsby", "pfeiffer", "parallel"])
@torch.no_grad()
def test_an_adapter_adds_its_network_to_the_output(kind: Kind, classifier: Callable[..., Any]) -> None:
    """Against the equation, on the inputs and outputs of the unchanged model."""
    net = classifier()
    seen: dict[str, Any] = {}
    names = (f"{BERT}.intermediate.dense", f"{BERT}.output.dense")
    for name in names:
        net.get_submodule(name).register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x[0], y)}))
    adapters = insert(net, ("classifier",), kind, 3)
    assert len(adapters) == (4 if kind == "houlsby" else 2)
    adapter = adapters[f"{BERT}.output.dense"]
    adapter.up.weight.normal_(), adapter.up.bias.normal_()
    outputs: list[Any] = []
    adapter.register_forward_hook(lambda _, x, y: outputs.append(y))
    net(input_ids=torch.tensor([[2, 5, 6]]))
    y = seen[f"{BERT}.output.dense"][1]
    z = seen[f"{BERT}.intermediate.dense"][0] if kind == "parallel" else y
    hidden = torch.relu(z @ adapter.down.weight.T + adapter.down.bias)
    torch.testing.assert_close(outputs[0], y + hidden @ adapter.up.weight.T + adapter.up.bias)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_decoders_take_adapters_too(family: str, classifier: Callable[..., Any]) -> None:
    net = classifier(family)
    ids = torch.tensor([[5, 6, 7]])
    before = net(input_ids=ids).logits
    insert(net, ("score",), "parallel", 3)
    torch.testing.assert_close(net(input_ids=ids).logits, before)
