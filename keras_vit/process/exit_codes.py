"""The exit codes of our processes."""

FINE = 0
FAILED = 1
WRONG_USAGE = 2
INCOMPLETE = 3  # some images cannot be read; all others have their answers
GIVEN_UP = 70  # it failed again and again: starting it again does not help
ONCE_MORE = 75  # it stopped to free its memory: start it again
