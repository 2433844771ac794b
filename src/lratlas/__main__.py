"""``python -m lratlas``."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder: no module there stands in for a library

from lratlas.cli.app import main

main()
