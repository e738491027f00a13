"""No byte that rankopt writes or prints contains a password of the storage, a W&B key or a hub token."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy
from conftest import plain_environment
from postgres import SERVER, database, why_not

Rankopt = Callable[..., subprocess.CompletedProcess[str]]
SECRETS = {"WANDB_API_KEY": "canary1" + "0" * 33, "HF_TOKEN": "hf_canary2" + "0" * 27}
PASSWORD = "canary3-7f3a"


@pytest.fixture
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A storage URL, and the password in it: in its usual part, or in the query."""
    if request.param == "sqlite":
        yield f"sqlite:///file:{tmp_path}/secret.db?uri=true&password={PASSWORD}", PASSWORD
        return
    if why_not():
        pytest.skip(f"there is no PostgreSQL at {sqlalchemy.make_url(SERVER).host} (or RANKOPT_TEST_POSTGRES)")
    with database() as url:
        parts = sqlalchemy.make_url(url)
        secret = parts.password or PASSWORD
        if secret in f"{parts.username} {parts.database}":
            pytest.skip("the server's password is part of its user or database name, which may be printed")
        if request.param == "query":
            parts = parts._replace(password=None).update_query_dict({"password": secret})
        else:
            parts = parts.set(password=secret)
        yield parts.render_as_string(hide_password=False), secret


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "password", "query"], indirect=True)
def test_no_secret_is_written(
    storage: tuple[str, str],
    tiny_study: Callable[..., Path],
    rankopt: Rankopt,
    here: Rankopt,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even with the URL on the command line, which W&B would record, and with a trial that fails."""
    pytest.importorskip("wandb")
    path = tiny_study(space={"training.lr": [5e-3, 1e3], "seed": [0, 1]}, training__steps=2)
    url, password = storage
    env = {**plain_environment(), **SECRETS}
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    folder = tmp_path / "work"
    folder.mkdir()
    output = ""
    for words in (
        ("run", path, "--workers", 2, "--wandb", "offline"),
        ("worker", "tiny", "--wandb", "offline", "--dir", "elsewhere"),
        ("show", "tiny", "--json"),
        ("report", "tiny"),
        ("export", "tiny", "--out", "adapter"),
        ("show", "nothing"),
    ):
        run = partial(rankopt, env=env) if words[0] in ("run", "worker") else here
        done = run(*words, "--storage", url, cwd=folder)
        assert done.returncode in ((2,) if "nothing" in words else (0, 1)), done.stderr
        output += done.stdout + done.stderr
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files)
    for secret in (password, *SECRETS.values()):
        assert secret not in output
        assert [str(file) for file in files if secret.encode() in file.read_bytes()] == []
