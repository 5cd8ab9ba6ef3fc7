"""``python -m jopt``: the command line."""

from jopt.cli import main


if __name__ == "__main__":
    main()
