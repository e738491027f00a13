"""What a checkpoint must be like to train as a language model."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rankopt.tasks.completions import end_token


def prepare_language_model(
    net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, tolerance: float = 1e-3
) -> None:
    """Check that a model predicts each token from the tokens before it, and drop its own settings of decoding.

    Settings such as a repetition penalty or a beam search would make texts depend on more than the study.

    Args:
        net: with a map to the vocabulary, changed in place.
        tokenizer: the model's.
        name: the model's, for messages.
        tolerance: relative difference of logits that is rounding.
    Raises:
        ValueError: the model sees later tokens, as encoders do, or its decoder has no start token.
    """
    config: Any = net.config
    if config.is_encoder_decoder:
        if config.decoder_start_token_id is None:
            raise ValueError(
                f"model.name must be an encoder-decoder whose config has decoder_start_token_id, got {name!r}"
            )
    elif sees_later_tokens(net, tolerance):
        raise ValueError(
            f"model.name must be a decoder or an encoder-decoder for language modelling, got {name!r}, whose outputs "
            "depend on later tokens"
        )
    config.use_cache = False  # only decoding needs it
    net.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end_token(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        do_sample=False,
    )


@torch.no_grad()
def sees_later_tokens(net: PreTrainedModel, tolerance: float = 1e-3) -> bool:
    """Whether the first token's logits depend on the last token."""
    config: Any = net.config.get_text_config()
    ids = torch.arange(8, device=net.device)[None] % int(config.vocab_size)
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % int(config.vocab_size)
    model: Any = net
    one, two = (model(input_ids=given, attention_mask=torch.ones_like(given)).logits[0, 0] for given in (ids, other))
    return bool((one - two).abs().max() > tolerance * one.abs().max())
