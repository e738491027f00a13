"""The command line: parse arguments, call the library, print.

Exit codes: 0 done, 1 trials failed, 2 wrong input, 3 storage or disk error, 130 interrupted.
"""

from __future__ import annotations

import gc
from typing import Annotated

import typer

from rankopt import __version__
from rankopt.cli import (
    adapters,
    authoring,
    blackbox,
    demo,
    evaluating,
    listing,
    mirroring,
    planning,
    results,
    results_file,
    running,
    suggesting,
)
from rankopt.cli.printing import fail

app = typer.Typer(
    help="Experiments for adaptive-rank LoRA: which rank should each layer get, what does it cost, and is it better?",
    epilog="Exit codes: 0 done, 1 trials failed, 2 wrong input, 3 storage or disk error, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


for command in (
    *(demo.demo, authoring.init, authoring.schema, listing.list_),
    *(running.run, running.worker, planning.validate, planning.plan),
    *(
        results.show,
        results.report,
        results.compare,
        results.best,
        results.importance,
        results.export,
        results.delete,
        blackbox.blackbox,
        mirroring.wandb,
    ),
    *(
        adapters.analyze,
        adapters.compress,
        adapters.merge,
        adapters.convert,
        adapters.extract,
        evaluating.evaluate,
        suggesting.suggest,
    ),
):
    app.command(command.__name__.rstrip("_"))(command)
app.add_typer(results_file.app, name="results")


def main() -> None:
    """The console script: prints errors on one line each and exits with a code."""
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        if end.__context__ and isinstance(end.__context__.__cause__, KeyboardInterrupt):
            fail(130, "interrupted")  # typer exits with this code without a word
        raise
    except ValueError as error:
        from rankopt.core.errors import problems_of

        fail(2, problems_of(error))
    except OSError as error:
        fail(3, f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error))
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("sqlalchemy", "optuna"):
            fail(3, f"storage error ({str(error).splitlines()[0]}): nothing recorded is lost, fix it and run again")
        raise
    finally:
        gc.freeze()  # saves the garbage collection at exit, which takes up to a second
