"""Recipes of flows for images."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flows.bijectors import AffineCouplingLayer, LULinear, MultiScale, Squeeze, get_preprocess_bijector
from tfp_flows.checks import image_sizes, positive_int
from tfp_flows.networks import conv_resnet_template, glow_template
from tfp_flows.recipes.mixing import normalization_layers
from tfp_flows.recipes.recipe import recipe
from tfp_flows.seeds import split_seed, structure_seed

# Smaller than the bound for tables: a dozen couplings in a row would stretch an unusual image until its loss overflows.
IMAGE_LOG_SCALE_BOUND = 2.0


def _image_shape(image_shape: Sequence[int], num_scales: int, squeezes: int) -> tuple[int, int, int]:
    shape = image_sizes("image_shape", image_shape)
    if shape[0] % 2**squeezes or shape[1] % 2**squeezes:
        raise ValueError(
            f"`num_scales`={num_scales} needs height and width divisible by {2**squeezes}, got {shape[0]} x {shape[1]}."
        )
    return shape


def _kept(channels: int, fraction: float) -> int:
    kept = channels - round(fraction * channels)
    if not 0 < kept < channels:
        raise ValueError(f"`fraction` must leave some of {channels} channels and factor out some, got {fraction!r}.")
    return kept


class _Builder:
    """Builds the layers of one flow, with seeds in order."""

    def __init__(self, template, *, normalization, log_scale_bound, seed, dtype):
        self.template, self.normalization, self.dtype = template, normalization, dtype
        self._log_scale_bound = log_scale_bound
        self._seed, self._count = seed, 0

    def seed(self, of_structure: bool = False) -> int:
        self._count += 1
        return split_seed(structure_seed(self._seed) if of_structure else self._seed, self._count)[-1]

    def coupling(self, shape, mask_type: str, orientation: int, name: str) -> tfb.Bijector:
        sliced = mask_type == "channel"  # the number of channels is even after a squeeze
        seen = (*shape[:2], shape[2] // 2) if sliced else shape
        network = self.template(image_shape=seen, seed=self.seed(), dtype=self.dtype, name=name)
        options = {"sliced": sliced, "log_scale_bound": self._log_scale_bound, "name": f"coupling_{name}"}
        return AffineCouplingLayer(network, mask_type, orientation, **options)

    def couplings(self, shape, mask_type: str, count: int, name: str) -> list[tfb.Bijector]:
        """Return couplings of alternating masks, each followed by a normalization, from the image inwards."""
        layers: list[tfb.Bijector] = []
        for i in range(count):
            layers.append(self.coupling(shape, mask_type, i % 2, f"{name}_{i}"))
            layers += normalization_layers(self.normalization, shape[-1], self.dtype, f"{name}_{i}")
        return layers


def _layers(blocks, image_shape, fraction, alpha, dtype) -> list[tfb.Bijector]:
    layers: list[tfb.Bijector] = [MultiScale(blocks, image_shape, fraction=fraction)]
    if alpha is not None:
        layers.append(tfb.Invert(get_preprocess_bijector(alpha, dtype), name="pixels"))
    return layers


@recipe(
    paper="Dinh et al. 2016, Density estimation using Real NVP", arxiv="1605.08803", density="1 pass", sampling="1 pass"
)
def image_real_nvp(
    image_shape: Sequence[int],
    *,
    num_scales: int = 2,
    num_couplings: int = 3,
    filters: int = 64,
    num_blocks: int = 2,
    fraction: float = 0.5,
    normalization: str | None = "actnorm",
    network_normalization: str = "weight",
    log_scale_bound: float | None = IMAGE_LOG_SCALE_BOUND,
    alpha: float | None = 0.05,
    conditional_size: int | None = None,
    seed: int,
    dtype: tf.DType = tf.float32,
):
    """Build a multi-scale RealNVP for images (Dinh et al. 2016): convolutional checkerboard and channel couplings.

    Each scale but the last has couplings with checkerboard masks, a squeeze, and couplings with channel masks; then
    part of the channels is factored out. The last scale has one more checkerboard coupling and nothing else.

    Args:
      image_shape: `(H, W, C)`; height and width must be multiples of `2 ** (num_scales - 1)`.
      num_couplings: Couplings of each kind at each scale.
      num_blocks: Residual blocks of each convolutional network.

    Example:
      >>> flow = tff.image_real_nvp((4, 4, 1), filters=8, num_blocks=1)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    num_scales, count = positive_int("num_scales", num_scales), positive_int("num_couplings", num_couplings)
    shape = image_shape = _image_shape(image_shape, num_scales, num_scales - 1)
    options = {"normalization": network_normalization, "conditional_size": conditional_size}
    template = functools.partial(conv_resnet_template, filters, num_blocks, **options)
    build = _Builder(template, normalization=normalization, log_scale_bound=log_scale_bound, seed=seed, dtype=dtype)
    blocks = []
    for scale in range(num_scales):
        if scale == num_scales - 1:
            layers = build.couplings(shape, "checkerboard", count + 1, f"{scale}_checkerboard")
        else:
            layers = build.couplings(shape, "checkerboard", count, f"{scale}_checkerboard")
            layers.append(tfb.Invert(Squeeze(name=f"squeeze_{scale}"), name=f"unsqueeze_{scale}"))
            shape = (shape[0] // 2, shape[1] // 2, 4 * shape[2])
            layers += build.couplings(shape, "channel", count, f"{scale}_channel")
            shape = (*shape[:-1], _kept(shape[-1], fraction))
        blocks.append(tfb.Chain(layers, name=f"scale_{scale}"))
    return _layers(blocks, image_shape, fraction, alpha, dtype)


@recipe(
    paper="Kingma and Dhariwal 2018, Glow: Generative Flow with Invertible 1x1 Convolutions",
    arxiv="1807.03039",
    density="1 pass",
    sampling="1 pass",
)
def glow(
    image_shape: Sequence[int],
    *,
    num_scales: int = 2,
    num_steps: int = 8,
    filters: int = 64,
    fraction: float = 0.5,
    normalization: str | None = "actnorm",
    network_normalization: str = "weight",
    log_scale_bound: float | None = IMAGE_LOG_SCALE_BOUND,
    alpha: float | None = 0.05,
    conditional_size: int | None = None,
    seed: int,
    dtype: tf.DType = tf.float32,
):
    """Build a Glow (Kingma and Dhariwal 2018): per scale a squeeze, then steps of ActNorm, 1x1 convolution, coupling.

    The invertible 1x1 convolutions are `LULinear` maps of the channels. The networks are those of `glow_template`.

    Args:
      image_shape: `(H, W, C)`; height and width must be multiples of `2 ** num_scales`.
      num_steps: Steps at each scale.

    Example:
      >>> flow = tff.glow((4, 4, 1), num_scales=1, num_steps=2, filters=8)
      >>> flow.log_prob(flow.sample(3)).shape
      TensorShape([3])
    """
    num_scales, num_steps = positive_int("num_scales", num_scales), positive_int("num_steps", num_steps)
    shape = image_shape = _image_shape(image_shape, num_scales, num_scales)
    options = {"normalization": network_normalization, "conditional_size": conditional_size}
    template = functools.partial(glow_template, filters, **options)
    build = _Builder(template, normalization=normalization, log_scale_bound=log_scale_bound, seed=seed, dtype=dtype)
    blocks = []
    for scale in range(num_scales):
        shape = (shape[0] // 2, shape[1] // 2, 4 * shape[2])
        layers: list[tfb.Bijector] = [tfb.Invert(Squeeze(name=f"squeeze_{scale}"), name=f"unsqueeze_{scale}")]
        for step in range(num_steps):
            label = f"{scale}_{step}"
            layers += normalization_layers(normalization, shape[-1], dtype, label)
            layers.append(LULinear(shape[-1], seed=build.seed(of_structure=True), dtype=dtype, name=f"conv1x1_{label}"))
            # The last coupling moves the half that is factored out, given the half that stays.
            layers.append(build.coupling(shape, "channel", (num_steps - step) % 2, label))
        blocks.append(tfb.Chain(layers, name=f"scale_{scale}"))
        if scale < num_scales - 1:
            shape = (*shape[:-1], _kept(shape[-1], fraction))
    return _layers(blocks, image_shape, fraction, alpha, dtype)
