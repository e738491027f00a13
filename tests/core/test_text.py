"""Hidden characters in texts from elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.core.text import _HIDDEN, printable, visible


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain, ümläut, 漢字\tand\nlines", "plain, ümläut, 漢字\tand\nlines"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("a\x00b\rc\x7fd\x9be", "abcde"),
        ("user\u202egnp.exe", "usergnp.exe"),
    ],
)
def test_only_what_can_be_seen(text: str, seen: str) -> None:
    assert visible(text) == seen


@given(st.text())
def test_what_is_hidden_is_not_printable(text: str) -> None:
    """So printable texts need no closer look."""
    assert not _HIDDEN.search("".join(filter(str.isprintable, text)))
    assert visible(text) == _HIDDEN.sub("", text)


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b", "\x1b[31mred", "a\x00", "\u202eright to left", "\udc80"])
def test_printable_text_is_one_line_of_printable_characters(text: str) -> None:
    assert printable(text).isprintable()
    assert printable("plain é 🙂 text") == "plain é 🙂 text"
