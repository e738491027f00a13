"""Without a network: the hub is asked once, and the cache is read from then on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from rankopt.training import hub
from rankopt.training.pretrained import load_tokenizer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The addresses that were asked for, by a client that reaches none of them."""
    found: list[str] = []

    class Unreachable:
        def head(self, url: str, timeout: float) -> None:
            found.append(url)
            raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_session", Unreachable)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.read_cache_if_unreachable.cache_clear()
    yield found
    hub.read_cache_if_unreachable.cache_clear()


def test_the_hub_is_asked_once(asked: list[str]) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match=r"must be a local folder .* got 'nobody/no-model'"):
            load_tokenizer("nobody/no-model")
    assert asked == [constants.ENDPOINT]
    assert constants.HF_HUB_OFFLINE


def test_a_folder_asks_nothing(asked: list[str], tiny_model: object) -> None:
    load_tokenizer(str(tiny_model))
    assert not asked


def test_the_errors_of_the_client_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nothing listens on, asked by huggingface_hub's own client."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.read_cache_if_unreachable.cache_clear()
    hub.read_cache_if_unreachable()
    hub.read_cache_if_unreachable.cache_clear()
    assert constants.HF_HUB_OFFLINE
