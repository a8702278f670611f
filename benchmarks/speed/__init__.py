"""Speed beside other packages: `python -m benchmarks.speed`."""
