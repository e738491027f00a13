"""Reading a YAML file with the place of every value (YAML 1.2: `1e-4` is a number, `no` is a string)."""

from __future__ import annotations

import io
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from rankopt.core.folders import new_file

Path_ = tuple[str | int, ...]
MOST, DEEPEST = 100_000, 50


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
        except RecursionError:
            raise ValueError(f"{path}: nested too deeply for a study file") from None
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise ValueError(f"{path}{place}: not valid YAML: {problem}") from None
        if not isinstance(self._root, dict):
            raise ValueError(f"{path}:1: a study file must be a mapping, got {_kind(self._root)}")
        self._left = MOST
        self.data: dict[str, Any] = self._plain(self._root, ())

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

    def _plain(self, node: Any, path: Path_) -> Any:
        """ruamel's round-trip nodes as ordinary Python values."""
        self._left -= 1
        if self._left < 0 or len(path) > DEEPEST:
            raise ValueError(
                f"{self.path}:{self.line(path[:DEEPEST])}: a study file must hold at most {MOST:,} values, aliases "
                f"counted where they are used, nested at most {DEEPEST} deep"
            )
        if isinstance(node, dict):
            plain: dict[str, Any] = {}
            for key, value in node.items():
                if str(key) in plain:
                    raise ValueError(f"{self.path}:{self.line((*path, key))}: the key {str(key)!r} twice")
                plain[str(key)] = self._plain(value, (*path, key))
            return plain
        if isinstance(node, list):
            return [self._plain(value, (*path, index)) for index, value in enumerate(node)]
        if isinstance(node, bool | ScalarBoolean):
            return bool(node)
        if node is None:
            return None
        for kind in (int, float, str):
            if isinstance(node, kind):
                return kind(node)
        raise ValueError(
            f"{self.path}:{self.line(path)}: a value must be a number, string, boolean, list or mapping, "
            f"got {_kind(node)}"
        )


def _kind(node: Any) -> str:
    """What a reader would call a value."""
    if node is None:
        return "nothing"
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", date: "a date"}
    return next((word for kind, word in kinds.items() if isinstance(node, kind)), type(node).__name__)


def write(data: dict[str, Any], path: Path) -> None:
    """Write plain data as YAML that `Document` reads back to the same data; whole, whoever else writes it just now."""
    text = io.StringIO()
    YAML().dump(data, text)
    new_file(path, text.getvalue())
