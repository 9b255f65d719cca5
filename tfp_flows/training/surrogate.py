"""The flow over the unknowns of a model, which draws with the model's names, shapes and supports."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import tensorflow_probability as tfp

from tfp_flows.bijectors import standardize
from tfp_flows.recipes import iaf, spline_autoregressive
from tfp_flows.training.model_target import ModelTarget

tfd = tfp.distributions


class SurrogatePosterior(tfd.TransformedDistribution):
    """A flow mapped to the unknown parts of a model, as returned by `surrogate_posterior`.

    Args:
      flow: The flow over unconstrained vectors, the attribute `distribution`.
      target: The `ModelTarget` of the model.
      name: Name of the distribution.

    Example:
      >>> target = tff.ModelTarget((tfd.HalfNormal(1.0), lambda scale: tfd.Normal(0.0, scale).log_prob(0.5)))
      >>> tff.SurrogatePosterior(tff.planar_flow(1), target).sample(5).shape
      TensorShape([5])
    """

    def __init__(self, flow: tfd.Distribution, target: ModelTarget, name: str = "surrogate_posterior"):
        parameters = dict(locals())
        self.target = target
        super().__init__(flow, target.bijector, parameters=parameters, name=name)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return super()._parameter_properties(dtype, num_classes)


def surrogate_posterior(
    model: Any, recipe: Callable | None = None, *, seed: int | None = None, **options
) -> SurrogatePosterior:
    """Return an untrained flow over the unknown parts of a model, as a `tfd.Distribution` of the model's structure.

    `sample(n)` returns the unknown parts with the model's names, shapes and supports, and `log_prob` takes them, with all
    log-dets. The flow starts at the scale of the prior. Train it with `VariationalFlow.from_model` or
    `tfp.vi.fit_surrogate_posterior`. Cost: that of the recipe.

    Args:
      model: A pinned joint distribution, or a pair `(prior, log_likelihood)` (see `ModelTarget`).
      recipe: A recipe for vectors. By default, `iaf` with three layers and a trainable base, and `spline_autoregressive` for
        one unknown number. `spline_coupling` follows separate modes better, and takes longer.
      seed: Integer seed of the initial weights.
      options: Options of the recipe, such as `num_layers`.

    Raises:
      ValueError: If a part of the model is discrete, improper or of unknown shape; the message names the part.

    Example:
      >>> prior = tfd.JointDistributionNamed({"loc": tfd.Normal(0.0, 1.0), "scale": tfd.HalfNormal(1.0)})
      >>> model = (prior, lambda parts: tfd.Normal(parts["loc"], parts["scale"]).log_prob(0.5))
      >>> posterior = tff.surrogate_posterior(model, tff.iaf, num_layers=2)
      >>> draws = posterior.sample(5)
      >>> sorted(draws), posterior.log_prob(draws).shape
      (['loc', 'scale'], TensorShape([5]))
    """
    target = ModelTarget(model)
    return SurrogatePosterior(flow_over(target, recipe, seed=seed, **options), target)


def flow_over(target: ModelTarget, recipe: Callable | None, *, seed: int | None, **options) -> tfd.Distribution:
    """Return an untrained flow over the unconstrained vectors of a target, at the scale of its prior."""
    if recipe is None:
        recipe = iaf if target.event_size > 1 else spline_autoregressive
        options = {"base": "trainable", "num_layers": 3 if target.event_size > 1 else 1, **options}
    rows = target.typical_prior()
    options = {"preprocess": standardize(rows, dtype=target.dtype, name="scale_of_prior"), **options}
    return recipe(target.event_size, seed=seed, dtype=target.dtype, **options)


def options_of(function: Callable, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keyword arguments into those of a function, and the others."""
    known = inspect.signature(function).parameters
    own = {key: value for key, value in options.items() if key in known}
    return own, {key: value for key, value in options.items() if key not in known}
