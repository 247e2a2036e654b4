"""``python -m woodpecker``: the command line."""

from woodpecker.cli.main import main

main()
