"""Entry point of `python -m rankopt`."""

from rankopt.cli import main

if __name__ == "__main__":
    main()
