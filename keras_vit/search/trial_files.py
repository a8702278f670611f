"""The files in the folder of a trial, beside KerasTuner's trial.json."""

RESULT = "result.json"  # history, seconds of fit, number of parameters
ERROR = "error.txt"  # the traceback of a trial that failed
KILLED = "killed.json"  # how often its process was killed
WEIGHTS = "checkpoint.weights.h5"  # KerasTuner's: of its best epoch
SET_ASIDE = "trial.json.set-aside"  # what stood as trial.json and cannot be of this search
