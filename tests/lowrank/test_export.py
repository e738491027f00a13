"""Exported adapters compute the same in PEFT, and PEFT's adapters compute the same here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import tiny_language_model
from torch import nn

from rankopt.core.pattern import RankPattern
from rankopt.lowrank.export import CONFIG, PREFIX, WEIGHTS, cut_peft, export_peft, import_peft
from rankopt.lowrank.inject import inject, linear_names, target_names
from rankopt.lowrank.layers import Layers, apply_pattern, pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import Scale

MAX_RANK = 4


def randomise(layers: Layers, model: nn.Module, head: Any, masks: Callable[[int], list[bool]], seed: int = 3) -> None:
    """Set random factors, gates and head; layer i gets the mask `masks(i)`."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for index, layer in enumerate(layers.values()):
            layer.open(MAX_RANK)
            for parameter in (layer.A, layer.B, layer.g):
                parameter.normal_(0, 0.3)
            layer.mask(torch.tensor(masks(index)))
        for part in head:
            for parameter in model.get_submodule(part).parameters():
                parameter.normal_(0, 0.5)


def bits(code: int) -> list[bool]:
    return [bool(code >> i & 1) for i in range(MAX_RANK)]


MASKS: dict[str, Callable[[int], list[bool]]] = {
    "all ranks, holes, zeros": lambda i: bits(i * 7 % 16),
    "all ranks, other holes": lambda i: bits((i * 5 + 11) % 16),
    "full": lambda i: bits(15),
    "one component in all": lambda i: bits(4 if i == 3 else 0),
    "one layer full": lambda i: bits(15 if i == 5 else 0),
    "nothing": lambda i: bits(0),
}


@pytest.mark.parametrize("masks", MASKS)
def test_peft_computes_the_same(family: str, masks: str, build: Any, answer: Any, heads: Any, tmp_path: Path) -> None:
    """Logits within 1e-5 on a fresh base model with another head; the file's size is the counted parameters."""
    head = heads[family]
    model = build(family)
    layers = inject(model, target_names(model, "all-linear", head), MAX_RANK, Scale("init", 6.0))
    randomise(layers, model, head, MASKS[masks])
    expected = answer(model)

    pattern = export_peft(layers, model, tmp_path, head=head, base_model="tiny")

    assert pattern == pattern_of(layers)
    fresh = build(family)
    assert (answer(fresh) - expected).abs().max() > 0.01, "the test could not fail"
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path)).eval()
    torch.testing.assert_close(answer(loaded), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer(loaded.merge_and_unload()), expected, atol=1e-5, rtol=1e-5)
    tensors = load_file(tmp_path / WEIGHTS)
    lora = sum(value.numel() for key, value in tensors.items() if ".lora_" in key)
    empty = min(shape.cost for shape in shapes_of(layers).values()) if pattern.total == 0 else 0
    assert lora == pattern.parameters(shapes_of(layers)) + empty
    trained = {f"{PREFIX}{part}.{key}" for part in head for key in model.get_submodule(part).state_dict()}
    assert {key for key in tensors if ".lora_" not in key} == trained


LANGUAGE = (
    "llama", "qwen2", "qwen3", "gemma", "gemma2", "mistral", "phi", "gpt_neox", "gpt2", "opt", "bloom", "falcon",
    "t5", "mt5", "bart", "pegasus",
)  # fmt: skip


@pytest.mark.parametrize("name", LANGUAGE)
@torch.no_grad()
def test_language_models(name: str, tmp_path: Path) -> None:
    """Decoders and encoder-decoders: logits within 1e-5 of PEFT's own, attached and merged."""

    def answer(net: Any) -> Any:
        ids = torch.arange(4, 24).view(2, 10)
        more = {"decoder_input_ids": ids.flip(1)[:, :7]} if net.config.is_encoder_decoder else {}
        return net(input_ids=ids, attention_mask=torch.ones_like(ids), **more).logits

    model = tiny_language_model(name)
    fixed = [found for found, module in model.named_modules() if module is model.get_output_embeddings()]
    layers = inject(model, target_names(model, "all-linear", fixed), MAX_RANK, Scale("init", 1.0))
    randomise(layers, model, (), MASKS["all ranks, holes, zeros"])
    expected = answer(model)
    kind = "SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM"
    pattern = export_peft(layers, model, tmp_path, base_model="tiny", task_type=kind)
    assert pattern.total
    fresh = tiny_language_model(name)
    assert (answer(fresh) - expected).abs().max() > 0.01, "the test could not fail"
    loaded: Any = PeftModel.from_pretrained(fresh, str(tmp_path)).eval()
    assert loaded.peft_config["default"].task_type == kind
    torch.testing.assert_close(answer(loaded), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(answer(loaded.merge_and_unload()), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cut", ["some", "one layer", "nothing", "all"])
def test_an_adapter_reduced_to_first_components(
    family: str, cut: str, build: Any, answer: Any, heads: Any, tmp_path: Path
) -> None:
    """In PEFT it computes the same as the model with the first components of every layer."""
    head = heads[family]
    model = build(family)
    layers = inject(model, target_names(model, "all-linear", head), MAX_RANK, Scale("unit", 2.0))
    randomise(layers, model, head, MASKS["full"])
    export_peft(layers, model, tmp_path, head=head, base_model="tiny")
    ranks = {"some": lambda i: i % 5, "one layer": lambda i: 3 * (i == 2), "nothing": lambda i: 0, "all": lambda i: 4}
    pattern = RankPattern({name: ranks[cut](index) for index, name in enumerate(layers)})
    apply_pattern(layers, pattern)
    expected = answer(model)
    cut_peft(tmp_path, pattern)
    loaded = PeftModel.from_pretrained(build(family), str(tmp_path)).eval()
    torch.testing.assert_close(answer(loaded), expected, atol=1e-5, rtol=1e-5)
    lora = sum(value.numel() for key, value in load_file(tmp_path / WEIGHTS).items() if ".lora_" in key)
    fewest = max(shape.cost for shape in shapes_of(layers).values()) if pattern.total == 0 else 0
    assert pattern.parameters(shapes_of(layers)) <= lora <= pattern.parameters(shapes_of(layers)) + fewest


@pytest.mark.parametrize("masks", MASKS)
def test_export_and_import(family: str, masks: str, build: Any, answer: Any, heads: Any, tmp_path: Path) -> None:
    """An exported adapter that is imported again gives the same logits and ranks."""
    head = heads[family]
    model = build(family)
    layers = inject(model, target_names(model, "all-linear", head), MAX_RANK, Scale("rs", 3.0))
    randomise(layers, model, head, MASKS[masks])
    pattern = export_peft(layers, model, tmp_path, head=head)
    other = build(family)
    imported = import_peft(other, tmp_path, max_rank=8)
    torch.testing.assert_close(answer(other), answer(model), atol=1e-5, rtol=1e-5)
    if pattern.total:
        assert pattern_of(imported) == {name: rank for name, rank in pattern.items() if rank}
    assert all(layer.max_rank == 8 and layer.s == 1.0 for layer in imported.values())


class Nested(nn.Module):
    """Names that are endings of others (`x`, `a.x`, `b.a.x`), and blocks 1 and 11; PEFT needs `config`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = {"model_type": "nested"}
        self.x = nn.Linear(6, 6)
        self.a = nn.ModuleDict({"x": nn.Linear(6, 6)})
        self.b = nn.ModuleDict({"a": nn.ModuleDict({"x": nn.Linear(6, 6)})})
        self.layer = nn.ModuleList([nn.Linear(6, 6) for _ in range(12)])

    def forward(self, x: Any) -> Any:
        return self.b.a.x(torch.tanh(self.a.x(torch.tanh(self.x(x))))) + sum(f(x) for f in self.layer)


@pytest.mark.parametrize(
    "ranks",
    [
        {"x": 1, "a.x": 3, "b.a.x": 2},
        {"x": 3, "a.x": 1, "b.a.x": 3},
        {"x": 2, "a.x": 3, "b.a.x": 3},
        {"x": 1, "a.x": 0, "b.a.x": 3},
        {"x": 2},
        {"a.x": 2},
        {"b.a.x": 2, "x": 1},
        {"layer.1": 1, "layer.11": 3},
        {"layer.1": 3, "layer.11": 1},
        {"layer.1": 2},
        {"layer.11": 2},
        {"layer.1": 1, "layer.10": 2, "layer.11": 2, "x": 3},
    ],
)
def test_names_are_not_confused(ranks: dict[str, int], tmp_path: Path) -> None:
    """PEFT matches endings of names and the first pattern; every module still gets its own rank."""
    model = Nested()
    layers = inject(model, linear_names(model), MAX_RANK, Scale("unit", 1.0))
    randomise(layers, model, (), lambda i: [True] * MAX_RANK)
    for name, layer in layers.items():
        layer.keep(ranks.get(name, 0))
    assert export_peft(layers, model, tmp_path, task_type=None) == {name: ranks.get(name, 0) for name in layers}
    loaded = PeftModel.from_pretrained(Nested(), str(tmp_path))
    adapted = {n.removeprefix(PREFIX): m.r["default"] for n, m in loaded.named_modules() if hasattr(m, "lora_A")}
    assert adapted == {name: rank for name, rank in ranks.items() if rank}
    x = torch.randn(5, 6)
    torch.testing.assert_close(loaded(x), model(x), atol=1e-5, rtol=1e-5)


LOAD = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "rankopt":
            raise ModuleNotFoundError("rankopt is not installed")
sys.meta_path.insert(0, Refuse())
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
folder = sys.argv[1]
model = AutoModelForSequenceClassification.from_pretrained(folder + "/base")
model = PeftModel.from_pretrained(model, folder + "/adapter").eval()
batch = torch.load(folder + "/batch.pt", weights_only=True)
with torch.no_grad():
    torch.save(model(**batch).logits, folder + "/logits.pt")
assert "rankopt" not in sys.modules
"""


def test_loading_needs_no_rankopt(build: Any, tmp_path: Path) -> None:
    """A process that cannot import rankopt loads an exported adapter."""
    model = build("bert")
    model.save_pretrained(tmp_path / "base")
    layers = inject(model, target_names(model, "all-linear", ["classifier"]), MAX_RANK, Scale("init", 6.0))
    randomise(layers, model, ["classifier"], MASKS["all ranks, holes, zeros"])
    export_peft(layers, model, tmp_path / "adapter", head=["classifier"], base_model="base")
    batch = {"input_ids": torch.arange(2, 20).reshape(2, 9)}
    torch.save(batch, tmp_path / "batch.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model(**batch).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, atol=1e-5, rtol=1e-5)


def test_config_fields(build: Any, tmp_path: Path) -> None:
    model = build("bert")
    layers = inject(model, target_names(model, ["query", "value"]), MAX_RANK, Scale("init", 6.0))
    randomise(layers, model, (), lambda i: [True] * (i + 1) + [False] * (3 - i))
    export_peft(layers, model, tmp_path / "new" / "folder", base_model="org/name", revision="abc", head=["classifier"])
    config = json.loads((tmp_path / "new" / "folder" / CONFIG).read_text())
    assert (config["peft_type"], config["task_type"], config["inference_mode"]) == ("LORA", "SEQ_CLS", True)
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", "abc")
    assert config["modules_to_save"] == ["classifier"]
    assert config["r"] == config["lora_alpha"]
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert len(config["rank_pattern"]) == 3, "the default rank has no entry"


# ------------------------------------------------------------------------------------------------------------- import


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"query": 2, "layer.1.output.dense": 5}},
        {"alpha_pattern": {"query": 3, "layer.1.output.dense": 7}},
        {
            "rank_pattern": {"query": 2, r"bert\.encoder\.layer\.1\.output\.dense": 5},
            "alpha_pattern": {"output.dense": 1, "query": 9},
            "use_rslora": True,
        },
    ],
)
def test_stock_adapters_compute_the_same_here(options: Any, build: Any, answer: Any, tmp_path: Path) -> None:
    """Rank patterns, alpha patterns and rsLoRA mean the same as in PEFT."""
    config = LoraConfig(
        r=3,
        lora_alpha=4,
        task_type="SEQ_CLS",
        target_modules=["query", "output.dense"],
        init_lora_weights=False,
        **options,
    )
    theirs = get_peft_model(build("bert"), config).eval()
    with torch.no_grad():
        for parameter in theirs.get_submodule("base_model.model.classifier.modules_to_save").parameters():
            parameter.normal_()
    theirs.save_pretrained(tmp_path)
    model = build("bert")
    layers = import_peft(model, tmp_path)
    torch.testing.assert_close(answer(model), answer(theirs), atol=1e-5, rtol=1e-5)
    assert (answer(build("bert")) - answer(theirs)).abs().max() > 0.01, "the test could not fail"
    ranks = {n.removeprefix(PREFIX): m.r["default"] for n, m in theirs.named_modules() if hasattr(m, "lora_A")}
    assert pattern_of(layers) == ranks


def test_stock_adapter_on_conv1d(build: Any, answer: Any, tmp_path: Path) -> None:
    config = LoraConfig(
        r=3, task_type="SEQ_CLS", target_modules=["c_attn", "c_proj"], init_lora_weights=False, fan_in_fan_out=True
    )
    theirs = get_peft_model(build("gpt2"), config).eval()
    theirs.save_pretrained(tmp_path)
    model = build("gpt2")
    import_peft(model, tmp_path)
    torch.testing.assert_close(answer(model), answer(theirs), atol=1e-5, rtol=1e-5)


@pytest.fixture
def adapter(build: Any, tmp_path: Path) -> Path:
    """A small valid adapter for BERT."""
    model = build("bert")
    layers = inject(model, target_names(model, ["query"]), 2, Scale("unit", 1.0))
    for layer in layers.values():
        layer.open(2)
    export_peft(layers, model, tmp_path, head=["classifier"])
    return tmp_path


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


QUERY = f"{PREFIX}bert.encoder.layer.0.attention.self.query"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "not an adapter, adapter_config.json is missing"),
    "no config": (lambda p: (p / CONFIG).unlink(), "not an adapter, adapter_config.json is missing"),
    "no weights": (lambda p: (p / WEIGHTS).unlink(), "not an adapter, adapter_model.safetensors is missing"),
    "config cut": (lambda p: (p / CONFIG).write_text('{"r": 2,\n'), "is corrupt"),
    "config binary": (lambda p: (p / CONFIG).write_bytes(b"\xff\xfe\x00"), "is corrupt"),
    "config a list": (lambda p: (p / CONFIG).write_text("[1]"), "is corrupt"),
    "config empty": (lambda p: (p / CONFIG).write_text(""), "is corrupt"),
    "config a folder": (lambda p: ((p / CONFIG).unlink(), (p / CONFIG).mkdir()), "is missing|cannot be read"),
    "no alpha": (lambda p: edit_config(p, lora_alpha=None), "is corrupt .*lora_alpha"),
    "weights cut": (lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:50]), "is corrupt"),
    "weights text": (lambda p: (p / WEIGHTS).write_text("not found\n"), "is corrupt"),
    "weights empty": (lambda p: (p / WEIGHTS).write_bytes(b""), "is corrupt"),
    "dora": (lambda p: edit_config(p, use_dora=True), "only plain LoRA adapters can be imported, got use_dora"),
    "ia3": (lambda p: edit_config(p, peft_type="IA3"), "only plain LoRA adapters can be imported, got IA3"),
    "no lora": (lambda p: edit_weights(p, dict.clear), "has no lora_A weights"),
    "no B": (
        lambda p: edit_weights(p, lambda t: t.pop(f"{QUERY}.lora_B.weight")),
        "corrupt .*layer.0.attention.self.query",
    ),
    "odd B": (
        lambda p: edit_weights(p, lambda t: t.update({f"{QUERY}.lora_B.weight": torch.zeros(16, 3)})),
        "corrupt .*layer.0.attention.self.query",
    ),
    "other width": (
        lambda p: edit_weights(p, lambda t: t.update({f"{QUERY}.lora_A.weight": torch.zeros(2, 8)})),
        r"query has factors \(16, 2\) and \(2, 8\), the model's module has shape \(16, 16\)",
    ),
    "other module": (
        lambda p: edit_weights(p, lambda t: t.update({f"{PREFIX}nowhere.lora_A.weight": torch.zeros(2, 8)})),
        "has a module 'nowhere' that this model lacks",
    ),
    "other tensor": (
        lambda p: edit_weights(p, lambda t: t.update({f"{PREFIX}nowhere.bias": torch.zeros(2)})),
        "has a tensor 'nowhere.bias' that this model lacks",
    ),
    "other head": (
        lambda p: edit_weights(p, lambda t: t.update({f"{PREFIX}classifier.bias": torch.zeros(1)})),
        r"classifier\.bias has shape \(1,\), in the model \(3,\)",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_adapter_is_one_line(damage: str, adapter: Path, build: Any) -> None:
    spoil, words = DAMAGE[damage]
    spoil(adapter)
    with pytest.raises(ValueError, match=words) as caught:
        import_peft(build("bert"), adapter)
    assert str(caught.value).startswith(f"{adapter}: ")
    assert "\n" not in str(caught.value)


def test_a_max_rank_below_the_adapters(adapter: Path, build: Any) -> None:
    with pytest.raises(ValueError, match=r"the adapter has rank 2, more than model\.max_rank 1"):
        import_peft(build("bert"), adapter, max_rank=1)


def test_a_stock_adapter_of_another_method(build: Any, tmp_path: Path) -> None:
    config = IA3Config(task_type="SEQ_CLS", target_modules=["key"], feedforward_modules=[])
    get_peft_model(build("bert"), config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="only plain LoRA adapters can be imported, got IA3"):
        import_peft(build("bert"), tmp_path)


def test_names_are_escaped(tmp_path: Path) -> None:
    """A dot in a name is escaped: `a.x` does not match `abx`."""

    class Dots(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.config = {"model_type": "dots"}
            self.a = nn.ModuleDict({"x": nn.Linear(4, 4)})
            self.abx = nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            return self.a.x(x) + self.abx(x)

    model = Dots()
    layers: dict[str, LowRankLinear] = dict(inject(model, ["a.x", "abx"], MAX_RANK, Scale("unit", 1.0)))
    randomise(layers, model, (), lambda i: bits(15))
    layers["a.x"].keep(2)
    assert export_peft(layers, model, tmp_path, task_type=None) == RankPattern({"a.x": 2, "abx": 4})
    assert list(json.loads((tmp_path / CONFIG).read_text())["rank_pattern"]) == [r"^a\.x"]
    x = torch.randn(3, 4)
    torch.testing.assert_close(PeftModel.from_pretrained(Dots(), str(tmp_path))(x), model(x), atol=1e-5, rtol=1e-5)
