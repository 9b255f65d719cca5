"""Inference: posteriors from simulators, Markov chains in a flow's coordinates, and calibration."""

from tfp_flows.inference.neural_posterior import NeuralPosterior

__all__ = ["NeuralPosterior"]
