"""Lets `python -m mallard` do what `mallard` does."""

from mallard.cli.main import main

if __name__ == "__main__":
    main()
