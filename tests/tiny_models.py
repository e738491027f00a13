"""Configs of tiny transformers, one function for every test: no download, no weights."""

from __future__ import annotations

from typing import Any

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# what a family calls the sizes that others share
RENAMED = {
    "gpt2": {
        "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
        "intermediate_size": "n_inner", "max_position_embeddings": "n_positions",
    },
    "distilbert": {
        "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    },
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "bart": {
        "num_hidden_layers": None,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "hidden_size": None,
        "d_model": 16,
        "intermediate_size": None,
        "num_attention_heads": None,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "decoder_start_token_id": 3,
    },
    "t5": {
        "hidden_size": None,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 24,
        "num_hidden_layers": None,
        "num_layers": 2,
        "num_attention_heads": None,
        "num_heads": 2,
        "intermediate_size": None,
        "max_position_embeddings": None,
        "pad_token_id": 0,
        "eos_token_id": 3,
        "decoder_start_token_id": 0,
    },
    "mixtral": {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4},
    "xlnet": {"max_position_embeddings": None, "d_head": 8, "d_inner": 24, "intermediate_size": None},
    "albert": {"embedding_size": 16},
    "canine": {"vocab_size": None},
    "deberta-v2": {"relative_attention": True, "position_buckets": 8},
    "electra": {"embedding_size": 16},
    "gpt2": {"n_inner": None, "bos_token_id": 2, "eos_token_id": 3},
}
for same, as_ in (("mt5", "t5"), ("mbart", "bart"), ("pegasus", "bart"), ("blenderbot", "bart")):
    OWN[same] = OWN[as_]
for same in ("gemma", "gemma2", "qwen3"):
    OWN[same] = {"head_dim": 8, "num_key_value_heads": 1}
for same in ("qwen2", "mistral"):
    OWN[same] = {"num_key_value_heads": 1}


def tiny_config(family: str = "bert", **changes: Any) -> Any:
    """A config of two blocks and 16 hidden units.

    Args:
        family: transformers' `model_type`.
        changes: fields of the config; they override the tiny sizes. None leaves a field at its default.
    """
    from transformers import AutoConfig

    names = RENAMED.get(family, {})
    sizes = {names.get(field, field): value for field, value in SIZES.items()}
    fields = {**sizes, **OWN.get(family, {}), **changes}
    return AutoConfig.for_model(family, **{name: value for name, value in fields.items() if value is not None})


def tiny_language_model(family: str, **changes: Any) -> Any:
    """A random decoder or encoder-decoder with a map to its vocabulary, in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = tiny_config(family, **{"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, **changes})
    torch.manual_seed(0)
    net = (AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM).from_config(config)
    with torch.no_grad():  # the logits of initial weights differ too little
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return net.eval()
