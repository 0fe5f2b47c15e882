"""``python -m covector.cli``: the command, where the ``covector`` script is not on the path."""

from covector.cli import main

if __name__ == "__main__":
    main()
