"""Entry point of `rankopt` and `python -m rankopt`: an interrupt or too little memory during start-up is one line."""

import sys


def main() -> None:
    """Import the commands and run the one that was asked for."""
    try:
        from rankopt.cli import main as run_command

        run_command()
    except KeyboardInterrupt:
        _end(130, "interrupted")
    except Exception as error:
        from rankopt.core.memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        _end(3, "not enough memory: close other programs, or raise the limit (ulimit -v)")


def _end(code: int, text: str) -> None:
    print(f"rankopt: {text}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
