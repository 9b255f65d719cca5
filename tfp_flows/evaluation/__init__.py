"""Evaluation of flows: diagnostics and plots."""
