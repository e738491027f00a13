"""Vision and speech transformers, on real digits and on generated audio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from own_training import same_by_peft, stacked, train
from torch import nn

from rankopt.api.adapt import adapt

SHORT = {"warmup": 0.1, "final": 0.3}
SMALL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "initializer_range": 0.2,
}  # fmt: skip
TONES = 4


def vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=10, **SMALL))


def digits() -> list[dict[str, Any]]:
    """scikit-learn's images of handwritten digits, 8 by 8."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return [{"pixel_values": x, "labels": torch.tensor(int(y))} for x, y in zip(pixels, labels, strict=True)]


def wav2vec2() -> nn.Module:
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification

    torch.manual_seed(0)
    convolutions: dict[str, Any] = {
        "conv_dim": [8, 8], "conv_stride": [5, 4], "conv_kernel": [10, 8], "num_feat_extract_layers": 2,
    }  # fmt: skip
    more: dict[str, Any] = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "layerdrop": 0.0}
    config = Wav2Vec2Config(
        num_labels=TONES, classifier_proj_size=8, mask_time_prob=0.0, **convolutions, **more, **SMALL
    )
    return Wav2Vec2ForSequenceClassification(config)


def audio() -> list[dict[str, Any]]:
    """Sine waves of four pitches with noise."""
    draw = torch.Generator().manual_seed(0)
    rows = []
    for index in range(64):
        label = index % TONES
        time = torch.arange(400) / 400
        wave = torch.sin(2 * torch.pi * (4 + 8 * label) * time) + 0.1 * torch.randn(400, generator=draw)
        rows.append({"input_values": wave, "labels": torch.tensor(label)})
    return rows


def whisper() -> nn.Module:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_mel_bins": 8,
        "max_source_positions": 10, "max_target_positions": 12, "vocab_size": 30, "init_std": 0.2,
    }  # fmt: skip
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    return WhisperForConditionalGeneration(WhisperConfig(**sizes, **special, suppress_tokens=None))


def spoken() -> list[dict[str, Any]]:
    """Spectrograms with one loud band, and its number as the text."""
    draw = torch.Generator().manual_seed(0)
    rows = []
    for index in range(32):
        features = 0.1 * torch.randn(8, 20, generator=draw)
        features[index % 8] += 1
        rows.append({"input_features": features, "labels": torch.tensor([5 + index % 8, 1])})
    return rows


CASES: dict[str, tuple[Any, Any, int]] = {
    "vit": (vit, digits, 12), "wav2vec2": (wav2vec2, audio, 13), "whisper": (whisper, spoken, 16),
}  # fmt: skip


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize(("allocator", "options"), [("adalora", SHORT), ("eva", {"batches": 2}), ("gora", {})])
def test_vision_and_speech(kind: str, allocator: str, options: dict[str, Any], tmp_path: Path) -> None:
    """The budget is met, the loss falls, and PEFT's model with the saved adapter computes the same."""
    make, data, layers = CASES[kind]
    adapted = adapt(make(), allocator, mean_rank=2, max_rank=4, **options)
    assert len(adapted.layers) == layers
    trainer = train(adapted, data(), tmp_path, steps=24, logging_strategy="steps", logging_steps=6)
    assert 0 < adapted.pattern.total <= 2 * layers
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[-1] < losses[0]
    adapted.save(tmp_path / "adapter")
    assert same_by_peft(make(), tmp_path / "adapter", adapted, stacked(data())) < 1e-4
