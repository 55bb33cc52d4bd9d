"""`python -m train`, the same as `live2diff train`."""

import sys

from live2diff.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
