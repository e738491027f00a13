"""Base models are loaded for an adapter, and damaged ones are refused in one line."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from rankopt.adapters.base_model import label_names, load_tokenizer
from rankopt.adapters.calibrate import moments_of
from rankopt.adapters.merge_into_base import merge_into_base


@pytest.mark.parametrize(
    "damage",
    [
        {"hidden_size": 64},
        {"num_hidden_layers": "x"},
        {"num_hidden_layers": 4},
        {"architectures": ["pipeline"]},
        {"architectures": ["LlamaConfig"]},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        None,
    ],
    ids=str,
)
def test_a_damaged_base_is_one_line(
    damage: dict[str, Any] | None, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any
) -> None:
    """Whatever error transformers raises, the line names the folder, and nothing is written."""
    adapter, base = adapter_of("all of Llama"), tmp_path / "base"
    stock.build("llama").save_pretrained(base)
    if damage and "architectures" in damage:  # used where the adapter names no task
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"task_type": None}))
    if damage:
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(config | damage))
    else:
        weights = (base / "model.safetensors").read_bytes()
        (base / "model.safetensors").write_bytes(weights[:-50])
    with pytest.raises(ValueError, match="--model must be a model's folder or hub id") as caught:
        merge_into_base(adapter, str(base), tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert str(base) in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {adapter.name, "base"}


OUTPUTS: dict[str, dict[str, Any]] = {
    "bart": {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24},
    "t5": {"decoder_start_token_id": 0, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
    "xlnet": {"max_position_embeddings": None, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24},
    "funnel": {"num_hidden_layers": None, "d_model": 16, "block_sizes": [1, 1], "num_decoder_layers": 1, "n_head": 2,
               "d_head": 8, "d_inner": 24},
    "xlm": {"emb_dim": 16, "n_layers": 1, "n_heads": 2},
    "bert": {},
}  # fmt: skip
TARGETS = {"bart": "fc1", "t5": "wi", "xlnet": "ff.layer_1", "funnel": "q_head", "xlm": "q_lin", "bert": "query"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", OUTPUTS)
@pytest.mark.parametrize("labels", [2, 5])
def test_the_number_of_labels_is_that_of_the_saved_head(labels: int, family: str, tmp_path: Path) -> None:
    """A head for 2 or 5 labels on a base model saved with 2 (BART: 3), whatever the head's last module is called."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from tiny_models import tiny_config

    torch.manual_seed(0)
    config = tiny_config(family, vocab_size=50, pad_token_id=1, **OUTPUTS[family])
    base = AutoModelForSequenceClassification.from_config(config)
    base.save_pretrained(tmp_path / "base")
    head = [
        name
        for name, part in base.named_children()
        if name != base.base_model_prefix and any(True for _ in part.parameters())
    ]
    other = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=labels, ignore_mismatched_sizes=True
    )
    lora = LoraConfig(task_type="SEQ_CLS", target_modules=[TARGETS[family]], modules_to_save=head)
    model = get_peft_model(other, lora)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.3)
    model.save_pretrained(str(tmp_path / "a"))
    merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    fresh = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "base", num_labels=labels, ignore_mismatched_sizes=True
    )
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "a")).eval()
    ids = torch.arange(4, 13).reshape(1, 9)
    ids[0, -1] = getattr(config, "eos_token_id", None) or 2  # some heads read the last of these
    with torch.no_grad():
        answer, expected = merged(input_ids=ids).logits, loaded(input_ids=ids).logits
    assert answer.shape == (1, labels)
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_label_names_are_those_of_the_adapters_config(tmp_path: Path) -> None:
    """As `rankopt export` writes them; the merged model gives names, not LABEL_0."""
    from peft import LoraConfig, get_peft_model
    from tiny_models import tiny_config

    config = tiny_config("bert", vocab_size=50, num_labels=3)
    base = AutoModelForSequenceClassification.from_config(config)
    base.save_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules=["query"])).save_pretrained(str(tmp_path / "a"))
    names = {0: "entailment", 1: "neutral", 2: "contradiction"}
    config.id2label, config.label2id = names, {name: index for index, name in names.items()}
    config.save_pretrained(tmp_path / "a")
    merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").config
    assert (merged.id2label, merged.label2id) == (names, {name: index for index, name in names.items()})


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"id2label": 3}', '{"id2label": {"a": "x", "b": "y"}}', '{"id2label": {"0": "x"}}',
        '{"id2label": {"0": "x", "1": "x"}}', '{"id2label": {"0": 1, "1": 2}}', "[" * 100_000, "\ud800",
    ],
)  # fmt: skip
def test_a_config_without_usable_names(text: str, tmp_path: Path) -> None:
    """It is ignored: names are a convenience."""
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert label_names(tmp_path, 2) == {}
    (tmp_path / "config.json").write_text('{"id2label": {"1": "y", "0": "x"}}')
    assert label_names(tmp_path, 2) == {0: "x", 1: "y"}


def test_trainable_tokens(tmp_path: Path, stock: Any) -> None:
    """Rows of an embedding that PEFT trains cannot be merged; the message says what can."""
    from peft import LoraConfig, get_peft_model

    stock.build("llama").save_pretrained(tmp_path / "base")
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], trainable_token_indices=[1, 2])
    get_peft_model(stock.build("llama"), config).save_pretrained(str(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"trainable_token_indices cannot be merged here; load the adapter with PEFT"):
        merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


CODE = "open({mark!r}, 'w')\nfrom transformers import LlamaConfig as Config, LlamaForCausalLM as Model\n"


class Trap:
    """Opens a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return (open, (self.mark, "w"))


def own_code(base: Path, mark: Path) -> None:
    (base / "evil.py").write_text(CODE.format(mark=str(mark)))
    config = json.loads((base / "config.json").read_text()) | {"model_type": "evil"}
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (base / "config.json").write_text(json.dumps(config))


def pickled(base: Path, mark: Path) -> None:
    (base / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Trap(mark)}, base / "pytorch_model.bin")


def raw_pickle(base: Path, mark: Path) -> None:
    (base / "model.safetensors").unlink()
    (base / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(mark)))


def outside(base: Path, mark: Path) -> None:
    shard = (base / "model.safetensors").rename(base.parent / "outside.safetensors")
    names = dict.fromkeys(load_file(shard), "../outside.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def device(base: Path, mark: Path) -> None:
    (base / "config.json").unlink()
    (base / "config.json").symlink_to("/dev/zero")


def pipe(base: Path, mark: Path) -> None:
    (base / "model.safetensors").unlink()
    os.mkfifo(base / "model.safetensors")


def linked(base: Path, mark: Path) -> None:
    (base / "config.json").unlink()
    (base / "config.json").symlink_to("/etc/passwd")


HOSTILE: dict[Callable[[Path, Path], None], str] = {
    own_code: "contains custom code",
    pickled: "its pickled weights hold other objects than tensors, or are cut off",
    raw_pickle: "its pickled weights hold other objects than tensors, or are cut off",
    outside: "must name files of this folder, got '../outside.safetensors'",
    device: "config.json must be an ordinary file",
    pipe: "model.safetensors must be an ordinary file",
    linked: "not a valid JSON file",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("attack", HOSTILE, ids=lambda attack: attack.__name__)
def test_hostile_base_models(
    attack: Callable[[Path, Path], None], adapter_of: Callable[..., Path], tmp_path: Path, stock: Any
) -> None:
    """Custom code, pickles, files outside of the folder and special files: one line, and no code runs."""
    adapter, base, mark = adapter_of("all of Llama"), tmp_path / "base", tmp_path / "mark"
    stock.build("llama").save_pretrained(base)
    attack(base, mark)
    before = sorted(tmp_path.iterdir())
    (tmp_path / "base" / "t.txt").write_text("a\n")
    for run in (
        lambda: merge_into_base(adapter, str(base), tmp_path / "merged"),
        lambda: moments_of(adapter, str(base), base / "t.txt"),
    ):
        with pytest.raises(ValueError, match=r"--model must be a model's folder or hub id, got .* \(.*") as caught:
            run()
        assert HOSTILE[attack] in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
        assert "\x1b" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before
    assert not mark.exists()


def test_custom_code_of_a_known_model_is_ignored(adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """A Llama whose config also names custom code is merged with transformers' own class."""
    stock.build("llama").save_pretrained(tmp_path / "base")
    own_code(tmp_path / "base", tmp_path / "mark")
    config = json.loads((tmp_path / "base" / "config.json").read_text()) | {"model_type": "llama"}
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    merge_into_base(adapter_of("all of Llama"), str(tmp_path / "base"), tmp_path / "merged")
    assert not (tmp_path / "mark").exists()
    assert not [*(tmp_path / "merged").glob("*.py")]


@pytest.mark.parametrize("family", ["gpt2", "llama", "roberta"])
def test_a_folder_without_a_tokenizer(family: str, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """transformers makes an empty tokenizer for some of them; it is not saved with a merged model."""
    case = {"gpt2": "fan_in_fan_out", "llama": "all of Llama", "roberta": "plain"}[family]
    stock.build(family).save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError):  # noqa: PT011 - the reason varies
        load_tokenizer(str(tmp_path / "base"))
    done = merge_into_base(adapter_of(case), str(tmp_path / "base"), tmp_path / "merged")
    assert any(note.startswith("no tokenizer was saved") for note in done.notes)
    assert not [*(tmp_path / "merged").glob("*tokenizer*")]
