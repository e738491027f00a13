"""YAML 1.2: values, their line numbers, and one-line errors with file and line number."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.core.errors import Location
from rankopt.core.yaml import Document, write


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(text: str | bytes) -> Document:
        path = tmp_path / "study.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return Document(path)

    return read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1.0e-4", 1e-4),
        ("5", 5),
        ("0x10", 16),
        ("010", 10),
        ("1_000", 1000),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("&x true", True),
        ("&x 3", 3),
        ("null", None),
        ("~", None),
        ("'3'", "3"),
        ("12:30", "12:30"),
        ("[1, a]", [1, "a"]),
        ("{int: [0, 16]}", {"int": [0, 16]}),
        ("|\n  two\n  lines", "two\nlines\n"),
    ],
)
def test_values(read: Any, text: str, value: Any) -> None:
    """Values have exactly the expected plain Python type."""
    found = read(f"key: {text}\n").data["key"]
    assert found == value
    assert type(found) is type(value)


def test_merge_keys_and_aliases(read: Any) -> None:
    data = read("a: &a {lr: 1e-3, steps: 5}\nb: {<<: *a, steps: 6}\nc: *a\n").data
    assert data["b"] == {"lr": 1e-3, "steps": 6}
    assert data["c"] == data["a"]


TEXT = """\
name: x
base:
  task: {name: rte}
  training:
    lr: 1e-4
    epochs: 3
space:
  allocator:
    - name: uniform
    - name: adalora
      interval: 10
  seed: [0,
         1]
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("name",), 1),
        (("base",), 2),
        (("base", "task"), 3),
        (("base", "task", "name"), 3),
        (("base", "training", "epochs"), 6),
        (("space", "allocator", 0), 9),
        (("space", "allocator", 1, "interval"), 11),
        (("space", "seed", 0), 12),
        (("space", "seed", 1), 13),
        (("base", "training", "absent"), 4),
        (("base", "absent", "deeper"), 2),
        (("space", "allocator", 7), 8),
        (("name", "below a leaf"), 1),
        (("absent",), 1),
    ],
)
def test_line(read: Any, path: Location, line: int) -> None:
    """The line of a value, or of its nearest parent that exists."""
    assert read(TEXT).line(path) == line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", r":3:1: not valid YAML: .*duplicate key"),
        ("base:\n  lr: 1\n  lr: 2\n", r":3:3: not valid YAML: .*duplicate key"),
        ("a: [1, 2\nb: 3\n", r":2:\d+: not valid YAML"),
        ("a: 1\n\tb: 2\n", r":2:1: not valid YAML"),
        ("a: b: c\n", r":1:\d+: not valid YAML"),
        ("a: *nowhere\n", r":1:4: not valid YAML"),
        ("a: 1\n---\nb: 2\n", r":\d+:\d+: not valid YAML"),
        ("a: \x00\n", r":1: not valid YAML: unacceptable character"),
        ("- 1\n- 2\n", r":1: a study file must be a mapping, got a list"),
        ("just words\n", r":1: a study file must be a mapping, got a string"),
        ("", r":1: a study file must be a mapping, got nothing"),
        ("a: 1\nb:\n  c: 2020-01-01\n", r":3: .*got a date"),
        ("a: !!set {x, y}\n", r":1: .*got"),
        ("1: a\n'1': b\n", r":2: the key '1' appears twice"),
    ],
)
def test_errors_are_one_line_with_a_line_number(read: Any, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"study\.yaml" + words) as caught:
        read(text)
    assert "\n" not in str(caught.value)


def test_unreadable_files(read: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.yaml: no such file"):
        Document(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        Document(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        read(b"\xff\xfe\x00")


KEYS = st.text("abc", min_size=1, max_size=4)
NUMBERS = st.integers(-(2**40), 2**40) | st.floats(allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text("ab: #'-", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(KEYS, PLAIN, min_size=1, max_size=4))
def test_what_is_written_is_read(data: dict[str, Any]) -> None:
    """Plain data is unchanged after writing and reading, including its types."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        write(data, path)
        found = Document(path).data
    assert found == data
    assert repr(found) == repr(data)


def test_bombs_are_refused(tmp_path: Path) -> None:
    """Exponentially many aliases and deep nesting are refused in one line."""
    bomb = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    bomb.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"bomb.yaml:\d+: a study file must hold at most 20,000 values"):
        Document(bomb)
    deep = tmp_path / "deep.yaml"
    for depth in (60, 3000):
        deep.write_text("a: " + "[" * depth + "]" * depth)
        with pytest.raises(ValueError, match=r"nested"):
            Document(deep)


def test_many_writers_and_readers(tmp_path: Path) -> None:
    """Workers of one study write its file at the same time; every reader finds a complete file."""
    path = tmp_path / "study.yaml"
    data = {"name": "x", "seeds": list(range(50))}

    def write_and_read(_: int) -> None:
        write(data, path)
        assert Document(path).data == data

    with ThreadPoolExecutor(8) as many:
        list(many.map(write_and_read, range(64)))
    assert [file.name for file in tmp_path.iterdir()] == ["study.yaml"]
