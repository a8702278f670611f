"""The command in a process of its own, with the tests' tiny model; it may be killed within an epoch."""

import os
import signal
import sys

from keras_vit.cli.main import main
from keras_vit.training import run
from tests.helpers import tiny


class Kill(run.EpochSeconds):
    epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (int(os.environ["DIES_IN_EPOCH"]), 1):
            os.kill(os.getpid(), signal.SIGKILL)


if "DIES_IN_EPOCH" in os.environ:
    run.EpochSeconds = Kill
with tiny.size():
    sys.exit(main(sys.argv[1:]))
