"""`python -m data_prep`: build a dataset without the `live2diff` command."""

import sys

from data_prep.build import main
from live2diff.errors import Live2DiffError

if __name__ == "__main__":
    try:
        main()
    except Live2DiffError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
