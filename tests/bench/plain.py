"""What a user would write today: Trainer and PEFT with defaults. The bench compares rankopt's trials with it.

python tests/bench/plain.py --data FOLDER --model MODEL_FOLDER [--method adalora] [--group] ...

FOLDER holds train.parquet and validation.parquet.
"""

from __future__ import annotations

import argparse
import json
import sys
import time


def main() -> None:
    """Train one adapter for some epochs, score it once on the validation split, print one line of JSON."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--method", default="lora", choices=["lora", "adalora"])
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--group", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--out", default="plain-out")
    args = parser.parse_args()

    from datasets import load_dataset
    from peft import AdaLoraConfig, LoraConfig, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    set_seed(args.seed)
    files = {name: f"{args.data}/{name}.parquet" for name in ("train", "validation")}
    rows = load_dataset("parquet", data_files=files, cache_dir=f"{args.out}/cache")
    columns = [name for name in ("sentence", "sentence1", "sentence2") if name in rows["train"].column_names]
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = rows.map(lambda row: tokenizer(*(row[c] for c in columns), truncation=True, max_length=128), batched=True)
    # evaluated as rankopt does: shortest examples first, 32 at a time
    validation = rows["validation"].map(lambda row: {"length": len(row["input_ids"])}).sort("length")
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=2, dtype="float32")
    steps = args.steps if args.steps > 0 else -(-len(rows["train"]) // 32)
    # rankopt counts the pooler to the head and leaves it frozen
    where = {"target_modules": "all-linear", "exclude_modules": ["pooler.dense"], "task_type": "SEQ_CLS"}
    if args.method == "lora":
        config = LoraConfig(r=8, lora_alpha=16, **where)
    else:
        config = AdaLoraConfig(
            init_r=12, target_r=8, lora_alpha=24, tinit=steps // 8, tfinal=steps // 2, deltaT=1, total_step=steps,
            orth_reg_weight=0.1, **where,
        )  # fmt: skip
    model = get_peft_model(model, config)

    class Allocate(TrainerCallback):
        def on_optimizer_step(self, arguments, state, control, **_):  # type: ignore[no-untyped-def]
            model.base_model.update_and_allocate(state.global_step)

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.out,
            num_train_epochs=1,
            max_steps=args.steps,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=32,
            learning_rate=args.lr,
            seed=args.seed,
            report_to="none",
            disable_tqdm=True,
            train_sampling_strategy="group_by_length" if args.group else "random",
        ),
        train_dataset=rows["train"],
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda answer: {
            "accuracy": float((answer.predictions.argmax(-1) == answer.label_ids).mean()),
        },
        callbacks=[Allocate()] if args.method == "adalora" else [],
    )
    start = time.perf_counter()
    trainer.train()
    trained = time.perf_counter() - start
    scores = trainer.evaluate()
    result = {
        "score": scores["eval_accuracy"],
        "steps": trainer.state.global_step,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "train_seconds": trained,
        "seconds": time.perf_counter() - began,
    }
    print(json.dumps(result), file=sys.stdout)


if __name__ == "__main__":
    main()
