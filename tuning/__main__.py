"""`python -m tuning` is `keras-vit search`, from a checkout."""

import sys

from keras_vit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
