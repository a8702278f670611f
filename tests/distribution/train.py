"""`keras-vit` in a new process, with the tiny model of the tests. It can kill itself during an epoch."""

import os
import signal
import sys

from keras_vit.cli.main import main
from keras_vit.training import loop
from tests.helpers import tiny


class Kill(loop.EpochSeconds):
    epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (int(os.environ["DIES_IN_EPOCH"]), 1):
            os.kill(os.getpid(), signal.SIGKILL)


if "DIES_IN_EPOCH" in os.environ:
    loop.EpochSeconds = Kill
with tiny.size():
    sys.exit(main(sys.argv[1:]))
