"""How a base model is held: what trains, what is shared, what is refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_models import tiny_config
from transformers import AutoModel, AutoModelForSequenceClassification

from rankopt.core.spec import decode
from rankopt.core.trial_spec import ModelSpec, TrialSpec
from rankopt.lowrank.layers import apply_pattern
from rankopt.lowrank.quantized import quantized_modules
from rankopt.tasks.glue import GLUE
from rankopt.training import base_weights
from rankopt.training.base_weights import (
    check_base,
    check_memory,
    checkpoints_blocks,
    loading_options,
    prepare_quantized,
)
from rankopt.training.evaluate import predict
from rankopt.training.joint.joint_training import run_trials
from rankopt.training.model import load_adapted
from rankopt.training.prepare import prepare as prepare_trial
from rankopt.training.score import score
from rankopt.training.train import train
from rankopt.training.trial import run_trial
from rankopt.tuners.build import build_tuners

KINDS = ["nf4", "int8"]
HELD: dict[str, dict[str, Any]] = {
    "bfloat16": {"model__dtype": "bfloat16", "training__precision": "bf16"},
    "nf4": {"model__quantization": "nf4"},
    "int8": {"model__quantization": "int8"},
    "nf4 bfloat16": {"model__quantization": "nf4", "model__dtype": "bfloat16", "training__precision": "bf16"},
}


@pytest.mark.parametrize("held", HELD)
def test_a_trial_learns(held: str, tiny_spec: Any, tmp_path: Path) -> None:
    """The loss falls, what is trained is float32, and the parameters are counted as without rounding."""
    pytest.importorskip("bitsandbytes")
    spec = tiny_spec(**HELD[held], training__epochs=6.0, training__lr=5e-3)
    prepared = prepare_trial(spec)
    dtypes = {p.dtype for p in prepared.adapted.net.parameters() if p.requires_grad}
    assert dtypes == {torch.float32}
    trained = train(prepared, tmp_path)
    losses = [event.loss for event in trained.losses]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    result = score(prepared, trained, tmp_path)
    plain = prepare_trial(tiny_spec())
    assert result.parameters is not None
    assert result.parameters.base == plain.adapted.base_parameters
    assert prepared.adapted.fingerprint != plain.adapted.fingerprint
    assert result.cost is not None
    assert (result.cost.merged_latency_seconds is None) == ("nf4" in held or held == "int8")


@pytest.mark.parametrize("kind", KINDS)
def test_the_exported_adapter_in_peft(kind: str, tiny_spec: Any, tmp_path: Path) -> None:
    """PEFT on the base model with the same quantisation gives the scored logits."""
    pytest.importorskip("bitsandbytes")
    prepared = prepare_trial(tiny_spec(model__quantization=kind))
    result = score(prepared, train(prepared, tmp_path), tmp_path)
    apply_pattern(prepared.adapted.layers, result.points[0].pattern)
    spec, split = prepared.spec.model, prepared.data.held_out["search"]
    expected = predict(prepared.adapted, prepared.task, split, 8, "fp32")["logits"]
    base = AutoModelForSequenceClassification.from_pretrained(
        spec.name, num_labels=2, **loading_options(spec, "cpu", ["classifier"])
    )
    prepare_quantized(base)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    other = replace(prepared.adapted, net=loaded, layers={}, columns=None)
    assert abs(predict(other, prepared.task, split, 8, "fp32")["logits"] - expected).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_trials_share_the_quantised_weights(kind: str, tiny_model: Path) -> None:
    """A base is in memory once per process, whatever the number of trials and of outputs."""
    pytest.importorskip("bitsandbytes")
    spec = ModelSpec(name=str(tiny_model), max_rank=2, quantization=kind)  # type: ignore[arg-type]
    nets = [load_adapted(spec, "unit", GLUE[task], 0).net for task in ("sst2", "sst2", "mnli")]
    held = [{module.weight.data_ptr() for module in quantized_modules(net)} for net in nets]
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 13  # the pooler too, which is not adapted
    ids = torch.arange(4, 10)[None]
    hidden = []
    for net in nets:
        hidden.append(net.eval().bert(input_ids=ids).last_hidden_state)  # type: ignore[operator, union-attr]
    assert torch.equal(hidden[0], hidden[1])
    assert torch.equal(hidden[0], hidden[2])


def test_computing_activations_again_changes_nothing(tiny_spec: Any, tmp_path: Path) -> None:
    """Bit for bit, with dropout; in a joint training such trials run their own passes."""
    changes = {"model__dropout": 0.1, "allocator": {"name": "adalora", "warmup": 1, "final": 1}}
    plain, again = (tiny_spec(**changes, model__gradient_checkpointing=on) for on in (False, True))
    assert checkpoints_blocks(prepare_trial(again).adapted.net)
    one, two = (run_trial(spec, tmp_path / name) for spec, name in ((plain, "plain"), (again, "again")))
    assert one.points == two.points
    assert one.losses == two.losses
    lines: list[str] = []
    joined = run_trials([again, again], [tmp_path / "a", tmp_path / "b"], log=lines.append)
    assert [result.points for result in joined] == [two.points] * 2
    assert lines == [
        "trials with model.gradient_checkpointing run one after another: only gated layers over plain weights can be "
        "stacked"
    ]


def test_attention_is_the_one_asked_for(tiny_spec: Any) -> None:
    """Another implementation gives the same logits up to rounding."""
    spec = tiny_spec(model__attention="eager")
    eager, usual = prepare_trial(spec), prepare_trial(tiny_spec())
    assert eager.adapted.model.config._attn_implementation == "eager"
    split = usual.data.held_out["search"]
    one, two = (predict(each.adapted, each.task, split, 8, "fp32")["logits"] for each in (eager, usual))
    assert 0 <= abs(one - two).max() < 1e-5


def test_half_precision_scales_the_loss(tiny_spec: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """In float16 the loss that is propagated is 1,024 times larger, and the gradients that are used are not; the trial
    learns as in float32. The products of a CPU stand for those of a GPU."""
    monkeypatch.setattr(base_weights, "check_base", lambda *_: None)
    results = [
        run_trial(tiny_spec(training__epochs=4.0, training__lr=5e-3, **changes), tmp_path / name)
        for name, changes in (
            ("half", {"model__dtype": "float16", "training__precision": "fp16"}),
            ("plain", {}),
        )
    ]
    half, plain = ([event.loss for event in result.losses] for result in results)
    assert half == pytest.approx(plain, rel=0.05)
    assert half != plain


@pytest.mark.parametrize("tuner", ["full", "bitfit", "adapter", "prompt"])
def test_other_tuners_on_a_quantised_base(tuner: str, tiny_model: Path) -> None:
    """Those that change the quantised weights are refused in one line; the others train."""
    pytest.importorskip("bitsandbytes")
    spec = ModelSpec(name=str(tiny_model), quantization="nf4")
    trial = decode(TrialSpec, {"task": {"name": "sst2"}, "tuner": {"name": tuner}})
    make = lambda: load_adapted(spec, "unit", GLUE["sst2"], 0, tuners=build_tuners(trial))  # noqa: E731
    if tuner == "full":
        with pytest.raises(ValueError, match=r"model\.quantization must be left out where tuner\.name trains"):
            make()
        return
    adapted = make()
    ids = torch.arange(4, 10)[None]
    adapted.net(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum().backward()
    trained = [p for one in adapted.attached.values() for p in one.parameters.values()]
    assert trained
    assert all(p.grad is not None and p.dtype == torch.float32 for p in trained)


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "float16 weights on a CPU": ({"dtype": "float16"}, "fp32", "model.dtype must be 'float32' or 'bfloat16' on a CPU"),
    "float16 products on a CPU": ({}, "fp16", "training.precision must be 'fp32' or 'bf16' on a CPU"),
    "no bitsandbytes": ({"quantization": "nf4"}, "fp32", r"pip install 'rankopt\[quantized\]'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_here(case: str, monkeypatch: Any) -> None:
    """One line that says what to change."""
    fields, precision, message = REFUSED[case]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(base_weights, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=message) as no:
        check_base(ModelSpec(name="mini", **fields), precision, "cpu")
    assert "\n" not in str(no.value)


def test_a_model_larger_than_the_gpu(monkeypatch: Any) -> None:
    """A trial uses one GPU: the line says what the weights take, and three ways out."""
    monkeypatch.setattr(base_weights, "device_memory", lambda kind: 16 * 10**9)
    whole, linear = 8 * 10**9, 7 * 10**9
    with pytest.raises(
        ValueError, match=r"does not use several: 'big' takes 32\.0 GB in float32, the GPU has 16\.0 GB"
    ):
        check_memory(ModelSpec(name="big"), whole, linear, "cuda")
    monkeypatch.setattr(base_weights, "device_memory", lambda kind: 7 * 10**9)
    with pytest.raises(ValueError, match=r"takes 7\.5 GB in float32 and nf4, the GPU has 7\.0 GB"):
        check_memory(ModelSpec(name="big", quantization="nf4"), whole, linear, "cuda")
    check_memory(ModelSpec(name="big", quantization="nf4", dtype="bfloat16"), whole, linear, "cuda")


def test_bfloat16_reads_what_float32_rounds_to(checkpoint: Callable[..., Path]) -> None:
    """Frozen weights are those of the file, rounded once; the head is in float32."""
    model = AutoModel.from_config(tiny_config("bert"))
    spec = ModelSpec(name=str(checkpoint("bert", model)), dtype="bfloat16")
    net = load_adapted(spec, "unit", GLUE["sst2"], 0).model
    read = net.bert.encoder.layer[0].output.dense.base.weight
    assert torch.equal(read, model.encoder.layer[0].output.dense.weight.bfloat16())
    assert net.classifier.weight.dtype == torch.float32
