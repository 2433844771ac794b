"""``python -m lratlas``."""

import sys

if not sys.flags.safe_path:
    del sys.path[0]  # the current folder: a module there must not shadow a library

from lratlas.cli.app import main

main()
