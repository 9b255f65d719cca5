"""Masks of autoregressive networks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow_probability as tfp

from tfp_flows import _compat_tfp
from tfp_flows.evaluation.plots.drawing import number_ticks, panels
from tfp_flows.networks import AutoregressiveNetwork
from tfp_flows.networks.autoregressive import made_masks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def masks(template: Any, *, figure: Figure | None = None) -> np.ndarray:
    """Plot the masks of an autoregressive network (MADE, arXiv:1502.03509) layer by layer, and their product.

    Rows are the units that a layer returns, columns those that it reads. Blue entries are connections, white ones are
    masked. An entry of the product is the number of paths from input `j` to the parameters of dimension `i`, on another
    color scale. For the order "left-to-right" the product is strictly lower triangular: the parameters of dimension
    `i` depend only on the dimensions before `i`. All parameters of a dimension have the same mask, which is shown once.

    Args:
      template: An `AutoregressiveNetwork` of this package or of TFP, a template over one, such as
        `masked_autoregressive_template(...)`, or a `MaskedAutoregressiveFlow` over such a template.
      figure: Figure to plot into.

    Returns:
      The axes, `[layers + 1]`. The last ones show the product, `[D, D]`.

    Raises:
      ValueError: If `template` has no masks, or is not built.

    Example:
      >>> axes = tff.plots.masks(tff.masked_autoregressive_template([8, 8], event_size=4))
      >>> axes.shape
      (4,)
      >>> axes[-1].images[0].get_array().shape
      (4, 4)
    """
    matrices = [np.asarray(mask, np.float64).T for mask in _masks_of(template)]  # [outputs, inputs]
    product = functools.reduce(lambda total, mask: mask @ total, matrices)
    axes = panels(figure, 1, len(matrices) + 1, (2.3, 2.6))[0]
    names = ["inputs", *(f"hidden layer {i + 1}" for i in range(len(matrices) - 1)), "parameters of dimension"]
    for i, (ax, matrix) in enumerate(zip(axes, [*matrices, product], strict=True)):
        last = i == len(matrices)
        top = max(1.0, matrix.max())
        shown = np.ma.masked_equal(matrix, 0.0)
        # The color scale starts below zero, so that a single path differs from none.
        ax.imshow(shown, cmap="Blues", vmin=-0.3 * top, vmax=1.2 * top, aspect="auto", interpolation="nearest")
        ax.set(box_aspect=1, xlabel="inputs" if last else names[i], ylabel=names[-1] if last else names[i + 1])
        ax.set_title("product" if last else f"layer {i + 1}", fontsize=10)
        number_ticks(ax.yaxis, matrix.shape[0], 5, fontsize=7)
        number_ticks(ax.xaxis, matrix.shape[1], 5, fontsize=7)
    return axes


def _masks_of(template: Any) -> list[np.ndarray]:
    """Return the masks `[inputs, outputs]`, with one column for each dimension in the last."""
    for attribute in ("_conditioner", "fn"):  # of a bijector, and of a template
        template = getattr(template, attribute, template)
    if isinstance(template, tfp.bijectors.AutoregressiveNetwork) and template.built:
        found = _compat_tfp.made_masks(template)
        return [*found[:-1], found[-1][:, :: template.params]]
    if isinstance(template, AutoregressiveNetwork) and template.built:
        return made_masks(template.degrees)
    if isinstance(template, (AutoregressiveNetwork, tfp.bijectors.AutoregressiveNetwork)):
        raise ValueError("`template` must be built, got a network without weights: call it once.")
    raise ValueError(
        "`template` must be a tff.AutoregressiveNetwork, or a template over one such as "
        f"tff.masked_autoregressive_template([32], event_size=3), got {template!r}."
    )
