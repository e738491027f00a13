"""The public names and signatures that programs rely on; CHANGELOG announces a change here."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import rankopt

SIGNATURES = {
    "adapt": (
        "(model: 'nn.Module', allocator: 'str' = 'adalora', *, mean_rank: 'float | None' = None, "
        "parameters: 'int | None' = None, target_modules: 'str | Sequence[str]' = 'all-linear', "
        "modules_to_save: 'Sequence[str] | None' = None, max_rank: 'int' = 8, alpha: 'float' = 16.0, "
        "scale: \"Literal['published', 'init', 'active', 'rs', 'unit']\" = 'published', dropout: 'float' = 0.0, "
        "seed: 'int' = 0, steps: 'int | None' = None, **options: 'Any') -> 'AdaptedModel'"
    ),
    "compare": (
        "(studies: 'Sequence[str | Path | Study]', *, folder: 'str | Path | None' = None, "
        "directory: 'str | Path' = 'runs', storage: 'str | None' = None, latex: 'bool' = False) -> 'Path'"
    ),
    "AdaptedModel.before_step": "(self) -> 'None'",
    "AdaptedModel.penalty": "(self) -> 'Tensor'",
    "AdaptedModel.after_step": "(self, optimizer: 'torch.optim.Optimizer') -> 'None'",
    "AdaptedModel.callback": "(self) -> 'OwnTrainerCallback'",
    "AdaptedModel.prepare": "(self, batches: 'Iterable[Batch]', loss: 'Loss | None' = None) -> 'None'",
    "AdaptedModel.parameter_groups": (
        "(self, lr: 'float', *, head_lr: 'float | None' = None, weight_decay: 'float' = 0.0) -> 'list[dict[str, Any]]'"
    ),
    "AdaptedModel.finish": "(self) -> 'None'",
    "AdaptedModel.save": "(self, folder: 'str | Path') -> 'RankPattern'",
    "AdaptedModel.merge": "(self) -> 'nn.Module'",
    "compress_within": (
        "(adapter: 'str | Path | Adapter', out: 'str | Path', within: 'float', model: 'str', task: 'TaskSpec | str"
        " | Path', *, text: 'Sequence[str]' = (), label: 'str | None' = None, prompt: 'str | None' = None, completion: "
        "'str | None' = None, data_dir: 'str | None' = None, max_length: 'int | None' = None, "
        "uniform: 'bool' = False, server: 'str | None' = None, batch_size: 'int' "
        "= 32, precision: 'str' = 'fp32', resamples: 'int' = 1000, seed: 'int' = 0, **options: 'Any') -> "
        "'CompressedWithin'"
    ),
    "suggest": (
        "(model: 'str', data: 'TaskSpec | str | Path', *, report: 'str | Path | None' = None, text: "
        "'Sequence[str]' = (), label: 'str | None' = None, prompt: 'str | None' = None, "
        "completion: 'str | None' = None, data_dir: 'str | None' = None, max_length: 'int | None' = None, "
        "budget: 'int | None' = None, minutes: 'float' = 10.0, max_rank: 'int' = 16, epochs: 'float | "
        "None' = None, bf16: 'bool' = False, seed: 'int' = 0, "
        "say: 'Callable[[str], None] | None' = None) -> 'Suggestion'"
    ),
    "evaluate": (
        "(adapters: 'Sequence[str | Path]', model: 'str', task: 'TaskSpec | str | Path', *, retain: 'TaskSpec | str |"
        " Path | None' = None, text: 'Sequence[str]' = (), label: 'str | None' = None, prompt: 'str | None' = None, "
        "completion: 'str | None' = None, data_dir: 'str | None' = None,"
        " max_length: 'int | None' = None, revision: 'str | None' = None, batch_size: 'int' = 32, precision: 'str' = "
        "'fp32', resamples: 'int' = 1000, seed: 'int' = 0) -> 'pd.DataFrame'"
    ),
    "compress": (
        "(adapter: 'str | Path | Adapter', out: 'str | Path', *, budget: 'int | None' = None, ratio: 'float | None' = "
        "None, energy: 'float | None' = None, rank: 'int | None' = None, uniform: 'bool' = False, moments: "
        "'Mapping[str, Tensor] | None' = None, server: 'str | None' = None) -> 'Compression'"
    ),
    "spectrum": "(adapter: 'str | Path | Adapter') -> 'Spectrum'",
    "Study.load": (
        "(study: 'str | Path', *, overrides: 'Iterable[str]' = (), directory: 'str | Path' = 'runs', "
        "storage: 'str | None' = None) -> 'Study'"
    ),
    "Study.run": (
        "(self, workers: 'int' = 1, *, together: 'int' = 1, retry_failed: 'bool' = False, "
        "wandb: \"Literal['disabled', 'offline', 'online']\" = 'disabled') -> 'Study'"
    ),
    "Study.results": "(self) -> 'pd.DataFrame'",
    "Study.best": "(self, budget: 'int | None' = None) -> 'pd.DataFrame'",
    "Study.stored": "(self) -> 'StudyResults'",
    "Study.report": "(self, folder: 'str | Path | None' = None, *, latex: 'bool' = False) -> 'Path'",
}
PROPERTIES = ("head", "layers", "pattern", "ranks_over_time", "steps")


NAMES = (
    "AdaptedModel",
    "Study",
    "adapt",
    "compare",
    "compress",
    "compress_within",
    "evaluate",
    "spectrum",
    "suggest",
)


def find(name: str) -> Any:
    found: Any = rankopt
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures(name: str) -> None:
    """Each is as recorded, documents its arguments, and names what it raises where it does."""
    found = find(name)
    assert str(inspect.signature(found)) == SIGNATURES[name]
    text = inspect.getdoc(found) or ""
    for argument in inspect.signature(found).parameters:
        if argument != "self":
            assert f"{argument}: " in text, argument


@pytest.mark.parametrize("name", PROPERTIES)
def test_properties(name: str) -> None:
    """Each is a property with a docstring."""
    found = inspect.getattr_static(rankopt.AdaptedModel, name)
    assert isinstance(found, property)
    assert found.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_documented(name: str) -> None:
    """Each has an example, and a function says what it returns and what it raises."""
    text = inspect.getdoc(find(name)) or ""
    assert ">>>" in text
    if inspect.isfunction(find(name)):
        assert "Returns:" in text
        assert "Raises:" in text


def test_nothing_public_is_missing() -> None:
    """Every function of `__all__`, and every public method of its classes, has its signature above."""
    known = {*SIGNATURES, *(f"AdaptedModel.{name}" for name in PROPERTIES)}
    assert set(NAMES) == set(rankopt.__all__) - {"__version__"}
    for name in NAMES:
        found = find(name)
        names = (
            [f"{name}.{part}" for part in vars(found) if not part.startswith("_")] if inspect.isclass(found) else [name]
        )
        assert set(names) <= known


def test_every_public_name_exists() -> None:
    """The names of `__all__` are there, each with a docstring, and an unknown one is an AttributeError."""
    assert set(rankopt.__all__) == {*NAMES, "__version__"}
    for name in rankopt.__all__:
        assert inspect.getdoc(getattr(rankopt, name))
    with pytest.raises(AttributeError, match="has no attribute 'adopt'"):
        _ = rankopt.adopt


def test_importing_is_fast() -> None:
    """`import rankopt` loads neither torch nor transformers."""
    code = "import sys, rankopt; print(sorted({'torch', 'transformers', 'pandas', 'optuna'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
