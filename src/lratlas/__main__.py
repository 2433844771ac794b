"""``python -m lratlas``."""

from lratlas.cli.app import main

main()
