"""Speed and quality of this package and of its peers, side by side in one run: `python -m benchmarks --help`."""
