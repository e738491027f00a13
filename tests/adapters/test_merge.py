"""Merging and converting against PEFT's own merging, and against dense sums."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.convert import convert
from rankopt.adapters.merge import merge_adapters
from rankopt.adapters.merge_into_base import merge_into_base


def test_into_the_base(case: str, tmp_path: Path, stock: Any) -> None:
    """transformers alone loads the merged model, and its logits are the adapter's; DoRA and biases too."""
    family, model = stock.make(case, tmp_path / "a")
    stock.build(family).save_pretrained(tmp_path / "base")
    expected = stock.logits(model)
    done = merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    assert done.relative_error < 1e-6
    kind = AutoModelForCausalLM if family == "llama" else AutoModelForSequenceClassification
    merged = kind.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(stock.logits(merged), expected, atol=1e-5, rtol=1e-5)


def test_a_shared_weight_is_refused(tmp_path: Path, stock: Any) -> None:
    """An embedding tied to the output map: PEFT adapts one of the two, merging would change both."""
    from peft import LoraConfig, get_peft_model
    from tiny_models import tiny_config

    config = tiny_config("llama", vocab_size=50, num_hidden_layers=1, tie_word_embeddings=True)
    base = AutoModelForCausalLM.from_config(config)
    base.save_pretrained(tmp_path / "base")
    get_peft_model(base, LoraConfig(r=2, target_modules=["embed_tokens"], task_type="CAUSAL_LM")).save_pretrained(
        str(tmp_path / "a"), save_embedding_layers=False
    )
    with pytest.raises(ValueError, match="shares its weight with"):
        merge_into_base(tmp_path / "a", str(tmp_path / "base"), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_another_model_is_refused(adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    stock.build("gpt2").save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=r"the adapter has a tensor .*, this model lacks it"):
        merge_into_base(adapter_of("plain"), str(tmp_path / "base"), tmp_path / "merged")


@pytest.mark.parametrize("case", ["plain", "rsLoRA", "fan_in_fan_out", "embeddings", "lora_bias", "AdaLoRA"])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.7, -0.3]], ids=str)
def test_the_sum_of_two(
    case: str, weights: list[float], adapter_of: Callable[..., Path], tmp_path: Path, stock: Any
) -> None:
    """Exact: every module's update is the weighted sum of both, and PEFT loads it; truncated: the best of that rank."""
    a, b = adapter_of(case, 1, "a"), adapter_of(case, 2, "b")
    sums = {name: weights[0] * update + weights[1] * stock.dense(b)[name] for name, update in stock.dense(a).items()}
    done = merge_adapters([a, b], tmp_path / "c", weights=weights)
    assert done.relative_error < 1e-6
    for name, update in stock.dense(tmp_path / "c").items():
        torch.testing.assert_close(update, sums[name], atol=1e-6, rtol=1e-5)
    stock.load(stock.cases[case][0], tmp_path / "c")
    cut = merge_adapters([a, b], tmp_path / "d", weights=weights, rank=2)
    tails = [float(torch.linalg.svdvals(update)[2:].norm()) for update in sums.values()]
    assert cut.error == pytest.approx(sum(tail**2 for tail in tails) ** 0.5, rel=1e-4)


def test_a_sum_computes_what_peft_adds(adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """Adapters on other modules and of other ranks; both merged by PEFT one after the other give the same logits."""
    a, b = adapter_of("plain", 1, "a"), adapter_of("rank and alpha patterns", 2, "b")
    merge_adapters([a, b], tmp_path / "c")
    one = stock.load("roberta", b).merge_and_unload()
    from peft import PeftModel

    both = PeftModel.from_pretrained(one, str(a)).merge_and_unload()  # a last: the head is the first adapter's
    torch.testing.assert_close(
        stock.logits(stock.load("roberta", tmp_path / "c")), stock.logits(both), atol=1e-5, rtol=1e-5
    )


def test_strangers_are_refused(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    a, dora = adapter_of("plain", 1, "a"), adapter_of("DoRA", 1, "b")
    with pytest.raises(ValueError, match="DoRA adapters cannot be added up"):
        merge_adapters([a, dora], tmp_path / "c")
    other = adapter_of("plain", 2, "d")
    for folder, base in ((a, "one"), (other, "two")):
        config = json.loads((folder / "adapter_config.json").read_text()) | {"base_model_name_or_path": base}
        (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="must have one base model, got 'one' and 'two'"):
        merge_adapters([a, other], tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("shrunk", [False, True])
def test_adalora_to_lora(shrunk: bool, tmp_path: Path, stock: Any) -> None:
    """What PEFT's `convert_to_lora` refuses: suppressed components go, modules without any too, logits stay."""
    _, model = stock.make("AdaLoRA", tmp_path / "ignored")
    masks = {}
    for index, (name, layer) in enumerate(model.base_model.model.named_modules()):
        if hasattr(layer, "lora_E"):
            kept = [bool(0b0110_1011_0000_1111 >> (4 * (index % 4) + i) & 1) for i in range(4)]
            layer.lora_E["default"].data[~torch.tensor(kept)] = 0
            masks[f"{name}.lora_E"] = kept
    if shrunk:
        model.peft_config["default"].rank_pattern = masks
    expected = stock.logits(model)
    model.save_pretrained(str(tmp_path / "a"))
    done = convert(tmp_path / "a", tmp_path / "b")
    assert done.relative_error < 1e-6
    config = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert not {"init_r", "total_step", "deltaT"} & set(config)
    ranks = {name: module.rank for name, module in read_adapter(tmp_path / "b").modules.items()}
    assert ranks == {name.removesuffix(".lora_E"): sum(kept) for name, kept in masks.items() if any(kept)}
    torch.testing.assert_close(stock.logits(stock.load("roberta", tmp_path / "b")), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["plain", "modules_to_save", "AdaLoRA", "rsLoRA"])
def test_a_pickle_is_read_when_asked_for(
    case: str, adapter_of: Callable[..., Path], tmp_path: Path, stock: Any
) -> None:
    """`.bin` is refused by name, converted on request, and then the same adapter."""
    source = adapter_of(case)
    expected = stock.logits(stock.load(stock.cases[case][0], source))
    weights = source / "adapter_model.safetensors"
    torch.save(load_file(weights), source / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(ValueError, match=r"rankopt convert .* reads its pickled adapter_model\.bin without running it"):
        read_adapter(source)
    convert(source, tmp_path / "b")
    torch.testing.assert_close(
        stock.logits(stock.load(stock.cases[case][0], tmp_path / "b")), expected, atol=1e-5, rtol=1e-5
    )


class Trap:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return (open, (str(Trap.path), "w"))

    path = Path("nowhere")


def test_a_pickle_never_runs(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """A pickle that would open a file when loaded is refused, and the file is not there."""
    source = adapter_of("plain")
    (source / "adapter_model.safetensors").unlink()
    Trap.path = tmp_path / "owned"
    torch.save({"base_model.model.x.lora_A.weight": Trap()}, source / "adapter_model.bin")
    with pytest.raises(ValueError, match="must hold tensors and nothing else"):
        convert(source, tmp_path / "b")
    assert not Trap.path.exists()
    assert not (tmp_path / "b").exists()


ODD: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "expanded": (lambda _: torch.zeros(1).expand(2, 10**12), "has 2,000,000,000,000 entries in 4 bytes"),
    "meta": (lambda A: A.to("meta"), "is strided on meta"),
    "sparse": (lambda A: A.to_sparse(), "is sparse_coo on cpu"),
    "complex": (lambda A: A.to(torch.complex64), "holds complex64"),
    "not finite": (lambda A: A / 0, "holds NaN or infinity"),
    "another rank": (lambda A: A[:3].clone(), r"factors must be \(r, in\) and \(out, r\)"),
}


@pytest.mark.parametrize("case", ODD)
def test_a_pickle_of_odd_tensors(case: str, adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """One line that names the adapter that was given; nothing is made of a few bytes that stand for terabytes."""
    source = adapter_of("plain")
    weights, (odd, message) = source / "adapter_model.safetensors", ODD[case]
    tensors = load_file(weights)
    key = next(key for key in tensors if ".lora_A" in key)
    torch.save(tensors | {key: odd(tensors[key])}, source / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(ValueError, match=message) as caught:
        convert(source, tmp_path / "b")
    assert str(caught.value).startswith(str(source))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "b").exists()


def test_nothing_to_convert(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be AdaLoRA, rsLoRA or pickled to be converted, it is plain LoRA"):
        convert(adapter_of("plain"), tmp_path / "b")


def test_nobodys_head_is_lost(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """A head that only a later adapter has is refused, whole; named first it is kept."""
    head, plain = adapter_of("modules_to_save", name="head"), tmp_path / "plain"
    tensors = load_file(head / "adapter_model.safetensors")
    config = json.loads((head / "adapter_config.json").read_text())
    plain.mkdir()
    save_file({key: value for key, value in tensors.items() if ".lora_" in key}, plain / "adapter_model.safetensors")
    (plain / "adapter_config.json").write_text(json.dumps(config | {"modules_to_save": None}))
    with pytest.raises(ValueError, match="not part of any sum, and only the first adapter's"):
        merge_adapters([plain, head], tmp_path / "sum")
    assert not (tmp_path / "sum").exists()
    assert merge_adapters([head, plain], tmp_path / "sum").notes
    kept = load_file(tmp_path / "sum" / "adapter_model.safetensors")
    assert {key for key in tensors if ".lora_" not in key} <= set(kept)


def test_a_head_that_is_not_finite(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """It is wrong input, as `compress` has it, and not a writing that failed."""
    head = adapter_of("modules_to_save", name="head")
    file = head / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in tensors if ".lora_" not in key)
    save_file(tensors | {key: torch.full_like(tensors[key], float("nan"))}, file)
    with pytest.raises(ValueError, match="must be finite"):
        merge_adapters([head, head], tmp_path / "sum")
    assert not (tmp_path / "sum").exists()


def test_nothing_plus_nothing(adapter_of: Callable[..., Path], tmp_path: Path, stock: Any) -> None:
    """AdaLoRA adapters all of whose components were dropped make a sum of one component that is zero, as PEFT needs a
    target; compressing one does, too."""
    empty = adapter_of("AdaLoRA")
    file = empty / "adapter_model.safetensors"
    cut = {
        key: value[:, :0] if ".lora_B" in key else value[:0] if ".lora_" in key else value
        for key, value in load_file(file).items()
    }
    save_file({key: value.contiguous() for key, value in cut.items()}, file)
    done = merge_adapters([empty, empty], tmp_path / "sum")
    assert (done.error, done.relative_error) == (0.0, 0.0)
    assert sum(module.rank for module in read_adapter(tmp_path / "sum").modules.values()) == 1
    for number, amount in enumerate(({"energy": 0.5}, {"ratio": 0.5}, {"budget": 1}, {"rank": 3, "uniform": True})):
        rankopt.compress(empty, tmp_path / f"small{number}", **amount)
        assert not any(update.any() for update in stock.dense(tmp_path / f"small{number}").values())


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
    """Whatever transformers says about it, with the folder's name; nothing is written."""
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


def test_a_disk_that_is_full_at_the_tokenizer(
    adapter_of: Callable[..., Path], tmp_path: Path, stock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error, not "no tokenizer", and leaves nothing."""

    class Tokenizer:
        def save_pretrained(self, folder: Path) -> None:
            raise OSError(28, "No space left on device")

    stock.build("llama").save_pretrained(tmp_path / "base")
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: Tokenizer())
    with pytest.raises(OSError, match="No space left"):
        merge_into_base(adapter_of("all of Llama"), str(tmp_path / "base"), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert not [*tmp_path.glob(".*")]
