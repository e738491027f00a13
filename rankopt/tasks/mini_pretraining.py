"""The small encoder of the generated tasks: a word tokenizer and a short pretraining on the toy language.

Each step reads pairs of clauses of `mini_language.corpus` with some words masked, and adds up four losses:

    word      the masked word                                               from the last hidden state of the token
    category  the category of every word, masked or not                     from the last hidden state of the token
    reworded  whether a word of the second clause has the category of its   from the last hidden state of the token
              counterpart in the first
    count     the number of such words                                      from the pooler, which is frozen afterwards

The encoder thereby learns categories and how to attend from a word to its counterpart, and its pooler learns to pass on
what a classifier needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from rankopt.tasks.mini_language import CATEGORIES, SLOTS, WORDS, category_of, corpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
TRAINING = {"threads": 1, "seed": 0, "pairs": 20_000, "steps": 1000, "batch": 32, "lr": 3e-3, "masked": 0.2}
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
IGNORED = -100  # the target that cross entropy ignores


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word; a pair is `[CLS] first [SEP] second [SEP]` with token types 0 and 1."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate((*SPECIAL.values(), *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONFIG["max_position_embeddings"],
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL,
    )


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Use a fixed number of threads: more are slower for small matrices, and would change the encoder's bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pretrain(folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Train the encoder from scratch on the CPU and save it with its tokenizer. Keeps the caller's random state.

    Args:
        folder: an existing folder.
        progress: called with (finished steps, all steps) after each step.
    """
    import torch
    from safetensors.torch import save_file
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
    from transformers import BertConfig, BertModel

    tokenizer = build_tokenizer()
    pairs = corpus(Random("rankopt corpus"), int(TRAINING["pairs"]))
    encoded = tokenizer([a for a, _ in pairs], [b for _, b in pairs], return_tensors="pt")
    ids, types = encoded["input_ids"], encoded["token_type_ids"]  # (pairs, 13): [CLS] 5 words [SEP] 5 words [SEP]
    categories = torch.full((len(tokenizer),), IGNORED)
    categories[len(SPECIAL) :] = torch.tensor([CATEGORIES.index(category_of(word)) for word in WORDS])
    categories = categories[ids]
    length = len(SLOTS)
    second = slice(length + 2, 2 * length + 2)
    reworded = (categories[:, 1 : length + 1] == categories[:, second]).float()  # (pairs, 5)

    steps, batch = int(TRAINING["steps"]), int(TRAINING["batch"])
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), threads(int(TRAINING["threads"])):
        torch.manual_seed(int(TRAINING["seed"]))
        model = BertModel(BertConfig.from_dict({**CONFIG, "vocab_size": len(tokenizer)}))
        with torch.no_grad():
            model.embeddings.position_embeddings.weight.mul_(5.0)  # makes positions easy to tell apart from the start
        width = model.config.hidden_size
        heads = nn.ModuleDict(
            {
                "word": nn.Linear(width, len(tokenizer)),
                "category": nn.Linear(width, len(CATEGORIES)),
                "reworded": nn.Linear(width, 1),
                "count": nn.Linear(width, length + 1),
            }
        )
        parameters = [*model.parameters(), *heads.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=TRAINING["lr"], betas=(0.9, 0.98), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, TRAINING["lr"], total_steps=steps + 1, pct_start=0.1)
        for step in range(steps):
            rows = torch.randint(len(pairs), (batch,))
            masked = (torch.rand(batch, ids.shape[1]) < TRAINING["masked"]) & (categories[rows] != IGNORED)
            out = model(ids[rows].masked_fill(masked, tokenizer.mask_token_id), token_type_ids=types[rows])
            hidden = out.last_hidden_state  # (batch, 13, width)
            loss = (
                cross_entropy(heads["word"](hidden[masked]), ids[rows][masked])
                + cross_entropy(
                    heads["category"](hidden).flatten(0, 1), categories[rows].flatten(), ignore_index=IGNORED
                )
                + binary_cross_entropy_with_logits(heads["reworded"](hidden[:, second]).squeeze(-1), reworded[rows])
                + cross_entropy(heads["count"](out.pooler_output), reworded[rows].sum(-1).long())
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            if progress:
                progress(step + 1, steps)
    model.config.architectures = ["BertModel"]
    model.config.save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)
