"""What a user would write today for a language model: Trainer and PEFT. The bench compares rankopt's trial with it.

python tests/bench/plain_text.py --data FOLDER --model MODEL_FOLDER [--seed 0]

FOLDER holds train.csv and report.csv with the columns `mr` and `ref`. The loss counts completions alone.
"""

from __future__ import annotations

import argparse
import json
import math


def main() -> None:
    """Train one adapter for an epoch, score it once, print one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="plain-out")
    args = parser.parse_args()

    from datasets import load_dataset
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(args.seed)
    files = {name: f"{args.data}/{name}.csv" for name in ("train", "report")}
    rows = load_dataset("csv", data_files=files, cache_dir=f"{args.out}/cache")
    tokenizer = AutoTokenizer.from_pretrained(args.model)

    def encode(row: dict[str, str]) -> dict[str, list[int]]:
        prompt = tokenizer(row["mr"] + "\n")["input_ids"]
        completion = [*tokenizer(row["ref"])["input_ids"], tokenizer.eos_token_id]
        return {
            "input_ids": prompt + completion,
            "attention_mask": [1] * len(prompt + completion),
            "labels": [-100] * len(prompt) + completion,
            "length": len(prompt + completion),
        }

    rows = rows.map(encode, remove_columns=["mr", "ref"])
    report = rows["report"].sort("length").remove_columns("length")  # evaluated as rankopt does: shortest first
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype="float32")
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.out,
            num_train_epochs=1,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=32,
            learning_rate=2e-3,
            seed=args.seed,
            report_to="none",
            disable_tqdm=True,
            train_sampling_strategy="group_by_length",
        ),
        train_dataset=rows["train"],
        eval_dataset=report,
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
    )
    trainer.train()
    result = {
        "score": math.exp(trainer.evaluate()["eval_loss"]),
        "steps": trainer.state.global_step,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
