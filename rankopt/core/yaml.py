"""Reading a YAML file with the place of every value (YAML 1.2: `1e-4` is a number, `no` is a string)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Path_ = tuple[str | int, ...]


class Document:
    """A YAML file: its plain data, and the line of every value.

    Args:
        path: the file.
    Raises:
        ValueError: one line with file, line and column when the file is missing, unreadable or no YAML mapping.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._root = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: cannot be read ({error})") from None
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise ValueError(f"{path}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
        if not isinstance(self._root, dict):
            raise ValueError(f"{path}:1: a study file must be a mapping, got {type(self._root).__name__}")
        self.data: dict[str, Any] = _plain(self._root)

    def line(self, path: Path_) -> int:
        """The line (from 1) of the value at a path of keys and indices, or of its nearest parent."""
        node, line = self._root, 1
        for part in path:
            try:
                place = node.lc.data[part]
                node = node[part]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
            line = place[0] + 1
        return line


def _plain(node: Any) -> Any:
    """ruamel's round-trip nodes as ordinary Python values."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    raise ValueError(f"values must be numbers, strings, booleans, lists or mappings, got {type(node).__name__}")
