"""Study files: whatever is wrong with one, the refusal is one line per problem with file and line number, and quick."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankopt.core.errors import InvalidSpecError
from rankopt.core.study_file import StudyFile
from rankopt.study.plan import validated_trials

TEXT = """\
name: s
description: a study
base:
  task: {name: mini-cola}
  model: {name: mini, max_rank: 8, scale: unit}
  allocator: {name: uniform}
  budget: {mean_rank: 2}
  training:
    epochs: 1
    lr: 1.0e-3
space:
  allocator, training.lr:
    - [{name: uniform}, 1.0e-3]
    - [{name: adalora, beta1: 0.85}, 2.0e-3]
  budget.mean_rank: [1, 4]
  seed: [0, 1]
search: {name: grid}
"""


def refusal(path: Path, text: str | bytes) -> list[str]:
    """The lines that refuse a file; none when it is valid."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        validated_trials(StudyFile(path))
        return []
    except InvalidSpecError as error:
        return str(error).splitlines()


def changed(line: str, new: str) -> str:
    assert f"{line}\n" in TEXT
    return TEXT.replace(f"{line}\n", f"{new}\n")


BROKEN: dict[str, tuple[str | bytes, str]] = {
    # what is wrong: the file, and what its refusal begins with after the file's name
    "a float that is none": (changed("    epochs: 1", "    epochs: !!float abc"), ":9:13: not valid YAML: could not"),
    "a date that is none": (changed("    epochs: 1", "    epochs: 2026-13-45"), ":9:13: not valid YAML: month must"),
    "a time that is none": (changed("    epochs: 1", "    epochs: 2026-01-01 25:00:00"), ":9:13: not valid YAML: hour"),
    "5,000 digits": (changed("    epochs: 1", f"    epochs: {'9' * 5000}"), ":9:13: not valid YAML: Exceeds the limit"),
    "5,000 hexadecimal digits": (
        changed("    epochs: 1", f"    epochs: 0x{'f' * 5000}"), ":9: an integer must have at most 1,000 bits"
    ),
    "20,000 binary digits": (changed("    epochs: 1", f"    epochs: 0b1{'0' * 19_999}"), ":9: an integer must have at"),
    "a set": (
        changed("    epochs: 1", "    epochs: !!set {a}"),
        ":9: a value must be a number, string, boolean, list or mapping, got a set",
    ),
    "an integer tag": (changed("    epochs: 1", "    epochs: !!int x"), ":9:13: not valid YAML: invalid literal"),
    "a boolean tag": (changed("    epochs: 1", "    epochs: !!bool x"), ":9:13: not valid YAML"),
    "a date": (changed("    epochs: 1", "    epochs: 2026-01-01"), ":9: a value must be a number, string"),
    "bytes": (changed("    epochs: 1", "    epochs: !!binary YQ=="), ":9: a value must be a number, string"),
    "another tag": (changed("    epochs: 1", "    epochs: !mine 3"), ":9: a value must be a number, string"),
    "half a surrogate pair": (changed("description: a study", 'description: "\\ud800"'), ":2: a string must be"),
    "a control character": (changed("    epochs: 1", "    epochs: \x07"), ":9: not valid YAML: unacceptable character"),
    "Latin-1": (TEXT.replace("a study", "é").encode("latin-1"), ":2: cannot be read: must be UTF-8, got the byte 0xe9"),
    "UTF-16": (TEXT.encode("utf-16"), ":1: cannot be read: must be UTF-8, got the byte 0xff"),
    "a list as key": (changed("    epochs: 1", "    ? [1]\n    : 2"), ":9: a key must be a string, got a list"),
    "a mapping as key": (changed("    epochs: 1", "    {}: 2"), ":9: a key must be a string, got a mapping"),
    "no mapping to enter": (changed("  training:", "  training: 0\n  x:"), ":8: base.training must be a mapping"),
    "no mapping to enter, from the space": (
        "name: s\nbase:\n  task: {name: mini-cola}\n  budget: 3\nspace:\n  budget.mean_rank: [1]\n",
        ":4: base.budget must be a mapping to hold 'mean_rank', got 3",
    ),
    "deep lists": (changed("    epochs: 1", "    epochs: " + "[" * 5000), ":9: must be nested at most 50 levels deep"),
    "deep mappings": (changed("    epochs: 1", "    epochs: " + "{a: " * 200), ":9: must be nested at most 50"),
    "deep blocks": (changed("    epochs: 1", "    epochs:\n      " + "- " * 3000), ":10: must be nested at most 50"),
    "a large file": (TEXT + "# " + "x" * 10_000_000, ":1: a study file must have at most 1,000,000 bytes"),
    "many values": (changed("    epochs: 1", f"    epochs: [{'1, ' * 300_000}]"), ":9: a study file must hold at most"),
    "many lists": (changed("    epochs: 1", f"    epochs: [{'[], ' * 200_000}]"), ":9: a study file must hold at most"),
    "a long value": (changed("    epochs: 1", f"    epochs: {'x' * 3000}"), ":9: base.training.epochs must be a valid"),
    "a long key": (changed("    epochs: 1", f"    {'x' * 500}: 1"), ":9: base.training."),
    "a long name": (changed("name: s", f"name: {'x' * 10_000}"), ":1: name must have at most 100 characters"),
    "a name like a file": (changed("name: s", "name: a.yaml"), ":1: name must not end in .yaml or .yml"),
    "a range of huge integers": (
        changed("  seed: [0, 1]", "  seed: {int: [1, 1180591620717411303424]}"),
        ":16: space.seed.int[1] must be at most 9,007,199,254,740,992",
    ),
    "a seed twice": (changed("  seed: [0, 1]", "  seed: [0, 1, 0]"), ":16: space.seed must list distinct values"),
    "a tiny scale": (changed("  model: {name: mini, max_rank: 8, scale: unit}", "  model: {name: mini, alpha: 1e-300}"),
                     ":5: base.model.alpha must be at least 1e-06, got 1e-300"),
    "a tiny learning rate": (
        changed("    - [{name: uniform}, 1.0e-3]", "    - [{name: uniform}, 1.0e-300]"),
        ":13: space.allocator, training.lr[0][1] must be at least 1e-12, got 1e-300",
    ),
    "a huge seed": (changed("  seed: [0, 1]", f"  seed: [0, {2**70}]"), ":16: space.seed[1] must be less than"),
    "a huge number of trials": (
        changed("search: {name: grid}", "search: {name: tpe, trials: 1000000000}"),
        ":17: search.trials must be at most 100,000, got 1000000000",
    ),
    "a hidden value": (changed("    lr: 1.0e-3", "    lr: -1"), ":10: base.training.lr must be at least 1e-12, got -1"),
    "a hidden type": (changed("    lr: 1.0e-3", "    lr: fast"), ":10: base.training.lr must be a valid number"),
    "a hidden name": (changed("  allocator: {name: uniform}", "  allocator: {name: unifrom}"),
                      ":6: base.allocator.name must be a known allocator, got 'unifrom'; did you mean 'uniform'?"),
    "a hidden name below a dimension": (
        changed("  allocator: {name: uniform}", "  allocator: {name: unifrom}")
        .replace("  allocator, training.lr:\n", "  allocator.name: [uniform]\n")
        .replace("    - [{name: uniform}, 1.0e-3]\n    - [{name: adalora, beta1: 0.85}, 2.0e-3]\n", ""),
        ":6: base.allocator.name must be a known allocator, got 'unifrom'; did you mean 'uniform'?",
    ),
    "a hidden task": (
        changed("  task: {name: mini-cola}", "  task: {name: mini-cloa}").replace(
            "  seed:", "  task.name: [mini-cola]\n  seed:"
        ),
        ":4: base.task.name must be a known task, got 'mini-cloa'",
    ),
    "a hidden option": (changed("  allocator: {name: uniform}", "  allocator: {name: adalora, beta1: 3}"),
                        ":6: base.allocator.beta1 must be less than 1, got 3"),
    "a hidden budget": (changed("  budget: {mean_rank: 2}", "  budget: {mean_rank: -2}"),
                        ":7: base.budget.mean_rank must be at least 0, got -2"),
    "an inner range": (
        changed("    - [{name: adalora, beta1: 0.85}, 2.0e-3]", "    - [{name: adalora, beta1: {float: [1]}}, 2.0e-3]"),
        ":14: space.allocator, training.lr[1][0].beta1 must be a valid dimension: float[1] is required",
    ),
    "the study in a list": ("- 1\n", ":1: a study file must be a mapping, got a list"),
}  # fmt: skip


@pytest.mark.parametrize("part", ["1, ", "[], "])
def test_a_file_with_too_many_values_is_not_read_to_its_end(part: str, tmp_path: Path) -> None:
    """Ten times as many values take no more time: reading stops at the limit."""
    seconds = []
    for count in (25_000, 240_000):
        began = time.thread_time()
        assert refusal(tmp_path / "s.yaml", changed("    epochs: 1", f"    epochs: [{part * count}]"))
        seconds.append(time.thread_time() - began)
    assert seconds[1] < 4 * seconds[0]


@pytest.mark.parametrize("case", BROKEN)
def test_a_refusal_is_one_line_with_file_and_line_number(case: str, tmp_path: Path) -> None:
    text, begins = BROKEN[case]
    path = tmp_path / "s.yaml"
    lines = refusal(path, text)
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{path}{begins}"), lines[0]
    assert len(lines[0]) < 500 + len(str(path))


def test_what_the_base_leaves_to_dimensions_is_no_problem(tmp_path: Path) -> None:
    """A required field, or the only amount of a budget, may be set in the space alone."""
    path = tmp_path / "s.yaml"
    assert refusal(path, TEXT) == []
    assert refusal(path, changed("  allocator: {name: uniform}", "")) == []
    assert refusal(path, changed("  budget: {mean_rank: 2}", "  budget: {unit: parameters}")) == []
    fewer = changed("  task: {name: mini-cola}", "  task: {max_length: 16}")
    assert refusal(path, fewer.replace("  seed: [0, 1]", "  task.name: [mini-cola, mini-rte]")) == []


@pytest.mark.parametrize("value", ["!!float abc", "2026-13-45", "9" * 5000, "[" * 5000, "{a: 1", "2026-01-01", "'x"])
def test_a_broken_override_is_one_line(value: str, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(TEXT)
    with pytest.raises(InvalidSpecError) as caught:
        StudyFile(path, [f"training.epochs={value}"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("--set training.epochs=")
    assert len(line) < 400


TOGETHER = """\
name: s
base:
  task: {name: mini-cola}
  allocator: {name: static}
space:
  'allocator.ranks[*.query], allocator.ranks[*.key]': [[1, 1], [2, 4]]
  task.name, training.lr: [[mini-cola, 1.0e-3], [mini-rte, 2.0e-3]]
  seed: [0, 1]
"""


def test_overrides_beside_fields_that_are_listed_together(tmp_path: Path) -> None:
    """Another field can be set; one of theirs is refused, and so is a mapping that holds only some of them."""
    path = tmp_path / "s.yaml"
    path.write_text(TOGETHER)
    assert StudyFile(path, ["task.max_length=16"]).study.base["task"]["max_length"] == 16
    whole = StudyFile(path, ["allocator={name: uniform}"]).study
    assert list(whole.space) == ["task.name, training.lr", "seed"]
    for override in ("allocator.ranks[*.key]=2", "training={epochs: 2}"):
        with pytest.raises(InvalidSpecError, match="is a dimension of the space; set space"):
            StudyFile(path, [override])


NASTY = (
    *("", "~", "[]", "{}", "[[]]", "{int: [0, 1]}", "{float: 3}", "{choice: []}", "-1", "0", "1e400", "-.inf", ".nan"),
    *("'", '"', "|", ">", "&a", "*a", "!!", "!!str", "!!set {a}", "!!omap [a: 1]", "<<: *a", "{<<: 3}", "? ", ": "),
    *("- ", "%", "@", "`", "0x", "1_000", "1__0", "0o8", "12:30:45", "2026-02-30", "\t", "\x00", "\u2028", "\ufeff"),
    *("\U0001f642", "\xe9" * 50, "x" * 400, "[1, [2, {a: [3]}]]", "{name: adalora}", "{name: {name: x}}", "{name: 3}"),
    *("{name: uniform, name: ramp}", "null, null", "9" * 60, "1.0e-3", "mini", "#", "...", "---", "a: b: c", "{a, b}"),
    *("{? a}", "[a, b", "{a: b", "]", "}", ",", "!<x> y", "true", "!!float x", "!!int x", "!!null x", "!!binary x"),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """Lines with a nasty value, doubled, lost, moved, cut, or with other characters: valid, or refused with a place."""
    lines = TEXT.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["value", "token", "twice", "lost", "moved", "cut", "insert"])):
            case "value":
                lines[index] = lines[index].partition(":")[0] + ": " + data.draw(st.sampled_from(NASTY))
            case "token":
                tokens = re.split(r"([\w.\-]+)", lines[index])
                tokens[data.draw(st.integers(0, len(tokens) - 1))] = data.draw(st.sampled_from(NASTY))
                lines[index] = "".join(tokens)
            case "twice":
                lines.insert(index, lines[index])
            case "lost":
                del lines[index : index + 1]
                lines = lines or [""]
            case "moved":
                lines[index] = " " * data.draw(st.integers(0, 6)) + lines[index].lstrip()
            case "cut":
                lines[index] = lines[index][: data.draw(st.integers(0, len(lines[index])))]
            case "insert":
                at = data.draw(st.integers(0, len(lines[index])))
                extra = data.draw(st.text(max_size=3))
                lines[index] = lines[index][:at] + extra.replace("\n", " ") + lines[index][at:]
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    for line in refusal(path, "\n".join(lines).encode("utf-8", "surrogatepass")):
        assert re.match(rf"{re.escape(str(path))}:\d+(:\d+)?: \S|\.\.\. and \d+ more problems", line), line
        assert len(line) < 600 + len(str(path))


def test_too_many_combinations(tmp_path: Path) -> None:
    """A grid whose trials could not be validated in reasonable time is refused; a search may have such a space."""
    numbers = ", ".join(map(str, range(1, 101)))
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: s\nbase: {task: {name: rte}, allocator: {name: uniform}}\nspace:\n"
        f"  seed: [{numbers}]\n  training.steps: [{numbers}]\n  training.batch_size: [{numbers}]\n"
    )
    with pytest.raises(
        InvalidSpecError, match=r"s.yaml:\d: space must have at most 100,000 combinations, got 1,000,000"
    ):
        StudyFile(path)
    assert StudyFile(path, ["search={name: random, trials: 5}"]).sampled


@pytest.mark.parametrize("name", ["rows.csv", "rows.TSV", "rows.parquet", "rows.csv.gz"])
def test_a_data_file_is_no_study(name: str, tmp_path: Path) -> None:
    """The message names the command that writes a study of the rows."""
    (tmp_path / name).write_bytes(b"body: x,label\nPAR1,1\n")
    with pytest.raises(InvalidSpecError) as raised:
        StudyFile(tmp_path / name)
    path = tmp_path / name
    assert str(raised.value) == f"{path} has rows, not a study: rankopt init --data {path} writes a study of them"
