"""Which output of a fine-tuned head belongs to which label of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def columns_of(labels: Sequence[str], head: Mapping[int, str]) -> tuple[int, ...] | None:
    """The head's output for every label of the task, matched by name; None where the names differ.

    Case is ignored, and so is the difference between "-", "_" and a space.

    Args:
        labels: the task's, in its own order.
        head: output -> label.
    Example:
        >>> columns_of(("entailment", "neutral"), {0: "NEUTRAL", 1: "ENTAILMENT"})
        (1, 0)
        >>> columns_of(("negative", "positive"), {0: "joy", 1: "anger"}) is None
        True

    Source: the GLUE scripts of transformers, which map labels to the head's outputs in the same way.
    """
    outputs = {plain(name): index for index, name in head.items()}
    if len(outputs) != len(head) or {plain(label) for label in labels} != outputs.keys():
        return None
    return tuple(outputs[plain(label)] for label in labels)


def plain(name: str) -> str:
    """A label without its case, and with one way to join words."""
    return name.casefold().replace("-", "_").replace(" ", "_")
