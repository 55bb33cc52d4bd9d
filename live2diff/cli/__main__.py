"""`python -m live2diff.cli`."""

import sys

from live2diff.cli import main

sys.exit(main())
