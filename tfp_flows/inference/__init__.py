"""Inference: posteriors from simulators, Markov chains in a flow's coordinates, and calibration."""

__all__: list[str] = []
