"""On torch each device has a process of its own: torchrun starts them."""

import os


def continue_as_torchrun(distribute: str, devices: int | None, arguments: list[str]) -> None:
    """Replaces this process by torchrun where several processes are needed; otherwise does nothing.

    Args:
        distribute, devices: see `keras_vit.distribute`.
        arguments: of Python, for each of the processes, such as `["-m", "keras_vit", "train"]`.
    """
    import keras

    if keras.backend.backend() != "torch":
        return
    from keras_vit.distribution.torch_engine import torchrun_command

    command = torchrun_command(distribute, devices, arguments)
    if command:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.execv(command[0], command)
