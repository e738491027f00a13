"""The wheel: it builds, holds what it needs, and works from an environment without a clone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import plain_environment

ROOT = Path(__file__).parents[1]
SOURCES = ("rankopt", "studies", "README.md", "LICENSE", "pyproject.toml")


def run(*command: object, cwd: Path) -> str:
    """Run a program away from the clone, without a network; return what it printed."""
    environment = {key: value for key, value in plain_environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=280,
        env=environment | {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel."""
    pytest.importorskip("build", reason="build is not installed: pip install 'rankopt[dev]'")
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name, **({"symlinks": True} if copy is shutil.copytree else {}))  # type: ignore[operator]
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ".", cwd=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def program(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of an environment with the wheel, and this environment's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python"),
        *("install", "--quiet", "--no-deps", "--no-index", next(distribution.glob("*.whl"))),
        cwd=folder,
    )
    # a plain path: the editable install of the clone, which is a .pth file itself, is not followed
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "rankopt"


def test_what_it_holds(distribution: Path) -> None:
    """Every module, the templates, the marker of typed packages and the first study; no tests."""
    pytest.importorskip("twine", reason="twine is not installed: pip install 'rankopt[dev]'")
    run(sys.executable, "-m", "twine", "check", "--strict", *distribution.iterdir(), cwd=distribution)
    with zipfile.ZipFile(next(distribution.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
        assert wheel.read("rankopt/cli/quickstart.yaml") == (ROOT / "studies" / "quickstart.yaml").read_bytes()
    needed = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "rankopt").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert not needed - held
    assert all(name.startswith("rankopt") for name in held)


def test_it_runs_from_its_own_environment(program: Path, tmp_path: Path) -> None:
    """The console script imports the installed package, and the study of `rankopt demo` is valid."""
    python = program.with_name("python")
    home = Path(run(python, "-c", "import rankopt; print(rankopt.__file__)", cwd=tmp_path).strip()).parent
    assert home.is_relative_to(program.parents[1])
    assert run(program, "validate", home / "cli" / "quickstart.yaml", cwd=tmp_path).endswith("valid, 60 trials\n")


@pytest.mark.slow
def test_demo(program: Path, tmp_path: Path) -> None:
    """`rankopt demo` runs the first study to its report, and says what comes next. One seed of five is enough here."""
    demo = (program, "demo", "--set", "seed=0", "--set", "budget.mean_rank=2")
    printed = run(*demo, cwd=tmp_path)
    assert "Next: rankopt init" in printed
    assert (tmp_path / "runs" / "quickstart" / "report" / "index.html").is_file()
    assert "quickstart.yaml exists" not in run(*demo, cwd=tmp_path), "to resume it, run it again"
