"""The cached small decoder of the generated tasks: a Llama, pretrained on the toy language on first use.

It reads `<s> clause : clause </s>` and predicts the next token. The second clause has, for each word of the first, the
first word of the same category (with probability 9/10) or any word, in the same order or with the object first. So the
decoder learns categories, and to look back from a word to its counterpart. A second loss, the category of each word
from its embedding, makes that fast. The rules of the tasks in `mini_text.py`,
by which words move to another category, are not in its corpus.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from rankopt.core.folders import cache_folder
from rankopt.tasks.mini_encoder import pretrained_once
from rankopt.tasks.mini_language import CATEGORIES, LEXICON, WORDS, category_of, clause, draw
from rankopt.tasks.mini_pretraining import threads

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

VERSION = 1  # increment it when the pretraining code changes; constants and language are part of the hash
CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}
TRAINING = {"threads": 1, "seed": 0, "pairs": 20_000, "steps": 1000, "batch": 32, "lr": 3e-3}
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
COLON = ":"
IGNORED = -100  # the target that cross entropy ignores


def swapped(words: list[str]) -> list[str]:
    """A clause with its object first.

    >>> swapped(["duti", "pobo", "naga", "bidi", "zizo"])
    ['bidi', 'zizo', 'and', 'duti', 'pobo', 'naga']
    """
    return [*words[3:], "and", *words[:3]]


def corpus(rng: Random, size: int) -> list[str]:
    """Texts `clause : clause`.

    >>> len(corpus(Random(0), 1)[0].split()) in (11, 12)
    True
    """
    texts = []
    for _ in range(size):
        first = clause(rng, joined=0.0)
        second = [LEXICON[category][0] if rng.random() < 0.9 else rng.choice(WORDS) for category in first]
        ordered = swapped(second) if rng.random() < 0.5 else second
        texts.append(" ".join([*(draw(rng, category) for category in first), COLON, *ordered]))
    return texts


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word; a text is `<s> words`."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate((*SPECIAL.values(), COLON, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", ids["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONFIG["max_position_embeddings"],
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL,
    )


def recipe_hash() -> str:
    """A hash of everything that determines the decoder.

    >>> len(recipe_hash())
    12
    """
    recipe = [VERSION, CONFIG, TRAINING, WORDS, corpus(Random(0), 100)]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


def decoder_path(progress: Callable[[int, int], None] | None = None) -> Path:
    """The folder of the pretrained decoder, for `from_pretrained`. Pretrains it if necessary (about half a minute).

    Safe to call from several processes at once: one of them trains, the others wait.

    Args:
        progress: called with (finished steps, all steps) during pretraining; not called if the decoder exists.
    Returns:
        A folder with a Llama checkpoint and its tokenizer; its name contains `recipe_hash()`.
    Raises:
        OSError: the cache cannot be written.
    """
    return pretrained_once(cache_folder() / f"mini-decoder-{recipe_hash()}", pretrain, progress)


def pretrain(folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Train the decoder from scratch on the CPU and save it with its tokenizer. Keeps the caller's random state.

    Args:
        folder: an existing folder.
        progress: called with (finished steps, all steps) after each step.
    """
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer()
    texts = [f"{text} {tokenizer.eos_token}" for text in corpus(Random("rankopt corpus"), int(TRAINING["pairs"]))]
    ids = tokenizer(texts, return_tensors="pt", padding=True)[
        "input_ids"
    ]  # (pairs, 14): <s> 5 words : 5 or 6 words </s>
    labels = ids.masked_fill(ids == tokenizer.pad_token_id, IGNORED)
    categories = torch.full((len(tokenizer),), IGNORED)
    categories[-len(WORDS) :] = torch.tensor([CATEGORIES.index(category_of(word)) for word in WORDS])
    shape: dict[str, Any] = {**CONFIG, "vocab_size": len(tokenizer)}
    for name in ("pad", "bos", "eos"):
        shape[f"{name}_token_id"] = getattr(tokenizer, f"{name}_token_id")
    steps, batch = int(TRAINING["steps"]), int(TRAINING["batch"])
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), threads(int(TRAINING["threads"])):
        torch.manual_seed(int(TRAINING["seed"]))
        model = LlamaForCausalLM(LlamaConfig(**shape))
        head = nn.Linear(model.config.hidden_size, len(CATEGORIES))
        parameters = [*model.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=TRAINING["lr"], betas=(0.9, 0.98), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, TRAINING["lr"], total_steps=steps + 1, pct_start=0.1)
        for step in range(steps):
            rows = torch.randint(len(ids), (batch,))
            logits = model(input_ids=ids[rows], use_cache=False).logits[:, :-1]
            loss = cross_entropy(logits.flatten(0, 1), labels[rows, 1:].flatten(), ignore_index=IGNORED)
            loss = loss + cross_entropy(head(model.get_input_embeddings().weight), categories, ignore_index=IGNORED)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if progress:
                progress(step + 1, steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
