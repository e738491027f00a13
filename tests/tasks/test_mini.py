"""The embedded tasks and their encoder: the same everywhere, disjoint, balanced, fully in the vocabulary, made once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

import pytest

from rankopt.tasks import mini_encoder, mini_language
from rankopt.tasks.mini import MINI
from rankopt.tasks.mini_encoder import encoder_path

every_task = pytest.mark.parametrize("task", MINI.values(), ids=MINI)


@pytest.fixture(scope="session")
def encoder() -> Path:
    return encoder_path()


def rows(task, split):
    return [(*(row[column] for column in task.columns), row["label"]) for row in task.read(split, None)]


@every_task
def test_a_split_has_exactly_the_declared_columns(task):
    for split, least in (("train", 2000), ("validation", 500)):
        data = task.read(split, None)
        assert set(data.column_names) == {*task.columns, "label"}
        assert data.features["label"].dtype == ("int64" if task.labels else "float32")
        assert len(data) >= least


@every_task
def test_no_text_occurs_twice(task):
    texts = [row[:-1] for split in ("train", "validation") for row in rows(task, split)]
    assert len(set(texts)) == len(texts)


@every_task
def test_labels_are_balanced(task):
    labels = [row[-1] for row in rows(task, "train")]
    if task.labels:
        assert set(labels) == set(range(len(task.labels)))
        assert max(Counter(labels).values()) < 0.6 * len(labels)
    else:
        assert min(labels) == 0.0
        assert max(labels) == 5.0
        assert 2.0 < sum(labels) / len(labels) < 3.0


@every_task
def test_no_word_alone_gives_the_label_away(task):
    """A rule about pairs of classes: the label's mean given any one word is near its overall mean."""
    data = rows(task, "train")
    labels: dict[str, list[float]] = defaultdict(list)
    for *texts, label in data:
        for word in {word for text in texts for word in text.split()}:
            labels[word].append(label)
    mean, spread = sum(row[-1] for row in data) / len(data), 1.0 if task.labels else 5.0
    for found in labels.values():
        if len(found) >= 50:
            assert abs(sum(found) / len(found) - mean) < 0.4 * spread


@every_task
def test_another_process_generates_the_same_rows(task):
    """Nothing depends on the hash seed, on the global random state or on what was generated before."""
    code = (
        "import random; from rankopt.tasks.mini import MINI; random.seed(7);"
        f"print(list(MINI[{task.name!r}].read('validation', None))[-3:])"
    )
    found = python(code, PYTHONHASHSEED="123")
    assert found.strip() == str(list(task.read("validation", None))[-3:])


@every_task
def test_an_unknown_split_and_a_folder_are_refused_in_one_line(task):
    for split, data_dir in (("test", None), ("train", "here")):
        with pytest.raises(ValueError, match=task.name) as error:
            task.read(split, data_dir)
        assert "\n" not in str(error.value)


def test_importing_the_tasks_imports_no_heavy_library():
    code = (
        "import sys, rankopt.tasks.mini, rankopt.tasks.mini_encoder;"
        "print(sorted({'torch', 'transformers', 'datasets'} & {*sys.modules}))"
    )
    assert python(code).strip() == "[]"


def test_spelling_and_kind_agree():
    assert len(set(mini_language.WORDS)) == len(mini_language.WORDS)
    for kind, members in mini_language.LEXICON.items():
        assert {mini_language.category_of(word) for word in members} == {kind}
    with pytest.raises(KeyError, match="'xxbo'"):
        mini_language.category_of("xxbo")


def test_the_corpus_repeats_about_half_of_the_kinds():
    pairs = mini_language.corpus(Random(1), 1000)
    same = [
        mini_language.category_of(a) == mini_language.category_of(b)
        for first, second in pairs
        for a, b in zip(first.split(), second.split(), strict=True)
    ]
    assert 0.4 < sum(same) / len(same) < 0.7


def test_the_tokenizer_knows_every_word_and_marks_pairs(encoder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    assert tokenizer.is_fast
    for task in MINI.values():
        data = task.read("validation", None)
        encoded = tokenizer(*(data[column][:] for column in task.columns))
        for ids, types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True):
            assert tokenizer.unk_token_id not in ids
            assert max(types) == len(task.columns) - 1
            assert len(ids) <= tokenizer.model_max_length


def test_the_encoder_loads_as_a_classifier_with_only_a_new_head(encoder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, report = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=3, dtype=torch.float32, output_loading_info=True
    )
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not report["unexpected_keys"]
    pair = mini_language.corpus(Random(1), 1)[0]
    batch = AutoTokenizer.from_pretrained(encoder)(*pair, return_tensors="pt")
    assert model(**batch).logits.shape == (1, 3)


def test_pretraining_taught_the_kinds(encoder):
    """Words of one kind lie closer together than words of two kinds, so a rule learnt on some carries over."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder, dtype=torch.float32)
    groups = [members for members in mini_language.LEXICON.values() if len(members) > 1]
    vectors = model.get_input_embeddings().weight.detach()
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    means = torch.stack([vectors[tokenizer.convert_tokens_to_ids(list(group))].mean(0) for group in groups])
    within = means.norm(dim=1).square().mean()  # mean cosine of two members of one kind, themselves included
    between = means.mean(0).norm().square()  # the same over all kinds
    assert within > 0.4
    assert between < 0.1


def test_a_made_encoder_is_reused(encoder, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError("pretrained twice")

    monkeypatch.setattr(mini_encoder, "pretrain", fail)
    assert encoder_path(fail) == encoder


def test_a_failed_pretraining_leaves_no_encoder_behind(monkeypatch, tmp_path):
    def fail(folder: Path, progress: object) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("power cut")

    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path / "deep" / "cache"))
    monkeypatch.setattr(mini_encoder, "pretrain", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        encoder_path()
    assert [path for path in (tmp_path / "deep" / "cache").iterdir() if path.is_dir()] == []


def test_an_encoder_with_lost_files_is_made_again(monkeypatch, tmp_path):
    def make(folder: Path, progress: object) -> None:
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            (folder / name).write_text("made")

    monkeypatch.setenv("RANKOPT_CACHE", str(tmp_path))
    monkeypatch.setattr(mini_encoder, "pretrain", make)
    folder = encoder_path()
    (folder / "model.safetensors").unlink()
    assert encoder_path() == folder
    assert (folder / "model.safetensors").read_text() == "made"


def test_the_name_follows_the_recipe(monkeypatch):
    before = mini_encoder.recipe_hash()
    assert mini_encoder.recipe_hash() == before
    monkeypatch.setattr(mini_encoder, "VERSION", -1)
    assert mini_encoder.recipe_hash() != before


def test_two_processes_at_once_make_one_encoder(tmp_path):
    """With three pretraining steps: the second process must wait, find the folder and train nothing."""
    code = (
        "from rankopt.tasks import mini_encoder, mini_pretraining;"
        "mini_pretraining.TRAINING |= {'steps': 3, 'pairs': 100};"
        "done = []; path = mini_encoder.encoder_path(lambda step, steps: done.append(step));"
        "print(len(done), path)"
    )
    both = [start(code, RANKOPT_CACHE=str(tmp_path)) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(int(steps) for steps, _ in outputs) == [0, 3]
    assert outputs[0][1] == outputs[1][1]
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert [str(path) for path in folders] == [outputs[0][1]]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folders[0].iterdir()}


def test_pretraining_repeats_itself_and_keeps_the_random_state_and_the_threads(monkeypatch, tmp_path):
    import torch

    from rankopt.tasks import mini_pretraining

    for name, value in {"steps": 3, "pairs": 100}.items():
        monkeypatch.setitem(mini_pretraining.TRAINING, name, value)
    weights = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        torch.manual_seed(len(weights))
        torch.set_num_threads(2 - len(weights))
        state = torch.get_rng_state()
        mini_pretraining.pretrain(tmp_path / name)
        assert torch.get_num_threads() == 2 - len(weights)
        assert torch.equal(torch.get_rng_state(), state)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    root = str(Path(mini_encoder.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def python(code: str, **environment: str) -> str:
    process = start(code, **environment)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output
