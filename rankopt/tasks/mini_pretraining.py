"""How the small encoder of the embedded tasks is made: a word tokenizer and a short pretraining on the toy language.

Each step reads pairs of clauses of `mini_language.corpus` with some words masked, and sums four losses:

    word      which word stands behind a mask                              from the last hidden state at that place
    kind      what kind of word stands at each place, masked or not        from the last hidden state at that place
    reworded  has this word of the second clause its counterpart's kind?   from the last hidden state at that place
    count     how many words of the second clause have                     from the pooler, which stays frozen later on

So the encoder knows kinds, it knows how to look from a word to its counterpart, and its pooler passes on what a
classifier needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from rankopt.tasks.mini_language import KINDS, SLOTS, WORDS, corpus, kind_of

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
IGNORED = -100  # cross entropy's mark for "no target here"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word; a pair is `[CLS] first [SEP] second [SEP]` with token types 0 and 1."""
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
def _threads(number: int) -> Iterator[None]:
    """Few threads for small matrices: more of them wait for each other, and would make another encoder."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pretrain(folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Train the encoder from scratch on the CPU and write it and its tokenizer; the caller's random state is kept.

    Args:
        folder: an existing folder.
        progress: called with (steps done, steps in all) after each step.
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
    kinds = torch.full((len(tokenizer),), IGNORED)
    kinds[len(SPECIAL) :] = torch.tensor([KINDS.index(kind_of(word)) for word in WORDS])
    kinds = kinds[ids]
    length = len(SLOTS)
    second = slice(length + 2, 2 * length + 2)
    reworded = (kinds[:, 1 : length + 1] == kinds[:, second]).float()  # (pairs, 5)

    steps, batch = int(TRAINING["steps"]), int(TRAINING["batch"])
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), _threads(int(TRAINING["threads"])):
        torch.manual_seed(int(TRAINING["seed"]))
        model = BertModel(BertConfig.from_dict({**CONFIG, "vocab_size": len(tokenizer)}))
        with torch.no_grad():
            model.embeddings.position_embeddings.weight.mul_(
                5.0
            )  # places must be told apart before they can be compared
        width = model.config.hidden_size
        heads = nn.ModuleDict(
            {
                "word": nn.Linear(width, len(tokenizer)),
                "kind": nn.Linear(width, len(KINDS)),
                "reworded": nn.Linear(width, 1),
                "count": nn.Linear(width, length + 1),
            }
        )
        parameters = [*model.parameters(), *heads.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=TRAINING["lr"], betas=(0.9, 0.98), weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, TRAINING["lr"], total_steps=steps + 1, pct_start=0.1)
        for step in range(steps):
            rows = torch.randint(len(pairs), (batch,))
            masked = (torch.rand(batch, ids.shape[1]) < TRAINING["masked"]) & (kinds[rows] != IGNORED)
            out = model(ids[rows].masked_fill(masked, tokenizer.mask_token_id), token_type_ids=types[rows])
            hidden = out.last_hidden_state  # (batch, 13, width)
            loss = (
                cross_entropy(heads["word"](hidden[masked]), ids[rows][masked])
                + cross_entropy(heads["kind"](hidden).flatten(0, 1), kinds[rows].flatten(), ignore_index=IGNORED)
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
