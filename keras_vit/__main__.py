import sys

from keras_vit.process.children import end_with_starter

if __name__ == "__main__":
    end_with_starter()
    from keras_vit.cli.main import main

    sys.exit(main())
