"""``python -m tilth`` is the same as ``tilth``."""

import sys

from tilth.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
