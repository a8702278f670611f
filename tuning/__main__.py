"""`python -m tuning`: the search of `keras-vit search`, from a checkout."""

import os
import sys

from keras_vit.cli.search import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code) if code else sys.exit(code)
