"""Bijectors that compute value and log-det together."""

from __future__ import annotations


class OneEvaluation:
    """TFP's four methods from `forward_and_log_det` and `inverse_and_log_det`; a base class in front of the bijector's."""

    def _forward(self, x, **kwargs):
        return self.forward_and_log_det(x, **kwargs)[0]

    def _inverse(self, y, **kwargs):
        return self.inverse_and_log_det(y, **kwargs)[0]

    def _forward_log_det_jacobian(self, x, **kwargs):
        return self.forward_and_log_det(x, **kwargs)[1]

    def _inverse_log_det_jacobian(self, y, **kwargs):
        return self.inverse_and_log_det(y, **kwargs)[1]
