"""``python -m lratlas``."""

from lratlas.cli import main

main()
