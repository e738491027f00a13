"""What a last block leaves out for a head that reads the first token alone, and where it may not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_models import NO_DROPOUT, SIZES, tiny_config
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from rankopt.lowrank.inject import inject, target_names
from rankopt.lowrank.scale import Scale
from rankopt.training.first_token import keep_first_token
from rankopt.training.pretrained import head_of

SIZE: dict[str, Any] = {"num_hidden_layers": 3, "pad_token_id": 0, **NO_DROPOUT}
BATCH = {
    "input_ids": torch.tensor([[2, 7, 9, 11, 3, 8], [2, 5, 6, 3, 0, 0], [2, 4, 3, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]),
}


def build(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    config.initializer_range = 0.3
    return AutoModelForSequenceClassification.from_config(config)


def learnt(net: Any) -> dict[str, Tensor]:
    """Logits, and the gradient of everything that a trial trains."""
    torch.manual_seed(1)
    head = head_of(net, set())
    layers = inject(net, target_names(net, "all-linear", head), 2, Scale("unit", 1.0))
    for layer in layers.values():
        layer.open(2)
        nn.init.normal_(layer.A)
        nn.init.normal_(layer.B)
    logits = net(**BATCH).logits
    logits.square().sum().backward()
    return {"logits": logits} | {n: p.grad for n, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("config", "reads_first"),
    [
        (tiny_config("bert", **SIZE), True),
        (tiny_config("roberta", **SIZE), True),
        (tiny_config("electra", **SIZE), True),
        (tiny_config("deberta-v2", **SIZE), True),
        (tiny_config("albert", **SIZE), False),
        (tiny_config("distilbert", n_layers=3, dropout=0.0, attention_dropout=0.0), False),
        (tiny_config("gpt2", n_layer=3, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0), False),
    ],
    ids=lambda value: value.model_type if isinstance(value, PretrainedConfig) else "",
)
def test_logits_and_gradients_stay(config: PretrainedConfig, reads_first: bool) -> None:
    """To rounding, in every family; and no random number of the process is drawn to find out."""
    net = build(config)
    other = copy.deepcopy(net)
    state = torch.get_rng_state()
    assert keep_first_token(net, head_of(net, set())) == reads_first
    assert torch.equal(torch.get_rng_state(), state)
    ours, theirs = learnt(net), learnt(other)
    assert ours.keys() == theirs.keys()
    assert len(ours) > 10
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)


def test_bigbird_cuts_off_what_it_padded() -> None:
    """Block-sparse attention, of which a short input has none, leaves a longer one in whole blocks, so all stay."""
    sparse = {"block_size": 4, "num_random_blocks": 1, "attention_type": "block_sparse"}
    net = build(tiny_config("big_bird", **SIZE | sparse | {"max_position_embeddings": 80}))
    assert not keep_first_token(net, head_of(net, set()))
    assert net(input_ids=torch.randint(1, 30, (2, 58))).logits.shape == (2, 2)


def test_characters_for_a_vocabulary() -> None:
    """CANINE's config knows no size of one; it is left alone and not refused."""
    width = SIZES["hidden_size"] * 8  # eight hashes, a slice of the embedding each
    net = build(tiny_config("canine", **SIZE | {"hidden_size": width, "num_hidden_layers": 1, "num_hash_buckets": 16}))
    assert not keep_first_token(net, head_of(net, set()))


def test_the_last_feed_forward_sees_one_token() -> None:
    """And the others see all; so does a copy of the net."""
    net = build(tiny_config(**SIZE))
    assert keep_first_token(net, ("classifier",))
    net, seen = copy.deepcopy(net), list[tuple[int, ...]]()
    for layer in net.bert.encoder.layer:
        layer.intermediate.register_forward_pre_hook(lambda module, inputs: seen.append(tuple(inputs[0].shape)))
    net(**BATCH)
    assert seen == [(3, 6, 16), (3, 6, 16), (3, 1, 16)]


class Mean(nn.Module):
    """A pooler that reads all tokens."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.mean(1)


class Last(nn.Module):
    """A pooler that reads the last one."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, -1]


class Second(nn.Module):
    """A pooler for which one token is too few."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, 1]


@pytest.mark.parametrize("pooler", [Mean, Last, Second])
def test_a_head_that_reads_more_is_left_alone(pooler: type[nn.Module]) -> None:
    """Also one whose weights are zero, so that its logits do not tell."""
    net = build(tiny_config(**SIZE))
    net.bert.pooler = pooler()
    nn.init.zeros_(net.classifier.weight)
    assert not keep_first_token(net, ("classifier",))
    assert net.classifier.weight.abs().sum() == 0
    net.bert.encoder.layer[-1].intermediate.register_forward_pre_hook(
        lambda module, inputs: pytest.fail("cut") if inputs[0].shape[1] == 1 else None
    )
    net(**BATCH)
