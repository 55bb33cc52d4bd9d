"""`python -m data_prep SRC... --out DIR`: `live2diff data build` where the command is not installed."""

import sys

from live2diff.cli import main

if __name__ == "__main__":
    sys.exit(main(["data", "build", *sys.argv[1:]]))
