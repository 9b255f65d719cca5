"""The multi-scale RealNVP of the course notebooks, and its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import AffineCouplingLayer, FlowBijector, Squeeze, get_preprocess_bijector
from tfp_flows.bijectors.composition import CompositeBijector, forward_and_log_det, inverse_and_log_det
from tfp_flows.checks import image_sizes
from tfp_flows.course.coupling import realnvp_block
from tfp_flows.distribution import FlowDistribution
from tfp_flows.networks import get_conv_resnet
from tfp_flows.registry import serializable
from tfp_flows.saving import describe
from tfp_flows.training import FlowModel

tfb, tfd = tfp.bijectors, tfp.distributions

DEFAULT_SHAPE = (32, 32, 3)


@serializable
class RealNVPMultiScale(CompositeBijector):
    """Two-scale RealNVP, forward from images `[H, W, C]` to latent values `[H / 2, W / 2, 4 C]`.

    Half of the channels are latent after the first scale, and the second scale transforms the others (Dinh et al. 2016,
    arXiv:1605.08803, section 3.6). Without blocks, it has a `realnvp_block` and four checkerboard couplings with
    networks of `get_conv_resnet`. With three blocks, they read the image, the squeezed image, and half of its channels.

    Args:
      acl_block_1, acl_block_2, acl_block_3: Bijectors, forward from images.
      image_shape: `(H, W, C)`, without blocks only; (32, 32, 3) if `None`.
      filters: Filters of the networks at full size, without blocks; twice as many after the squeeze.
      name: Name of the bijector.

    Raises:
      ValueError: If only some blocks are given, or for an odd height or width.

    Example:
      >>> tff.course.RealNVPMultiScale(image_shape=(4, 4, 1), filters=4).forward(tf.ones([5, 4, 4, 1])).shape
      TensorShape([5, 2, 2, 4])
    """

    def __init__(
        self,
        acl_block_1: tfb.Bijector | None = None,
        acl_block_2: tfb.Bijector | None = None,
        acl_block_3: tfb.Bijector | None = None,
        *,
        image_shape: Sequence[int] | None = None,
        filters: int = 64,
        name: str = "real_nvp_multi_scale",
        **kwargs,
    ):
        given = [block for block in (acl_block_1, acl_block_2, acl_block_3) if block is not None]
        if not all(isinstance(block, tfb.Bijector) for block in given):
            raise ValueError(f"`acl_block_1`, `acl_block_2` and `acl_block_3` must be bijectors, got {given!r}.")
        if given and image_shape is not None:
            raise ValueError("`image_shape` must be left out if blocks are given: they determine the shape.")
        if len(given) == 3:
            self.image_shape = None
            first = tfb.Chain([acl_block_2, Squeeze(), acl_block_1], name="scale_0")
            second = tfb.Chain([acl_block_3], name="scale_1")
        elif not given:
            shape = DEFAULT_SHAPE if image_shape is None else image_shape
            h, w, c = self.image_shape = image_sizes("image_shape", shape)
            if h % 2 or w % 2:
                raise ValueError(f"`image_shape` must have an even height and width, got {image_shape!r}.")
            large, squeezed, small = (h, w, c), (h // 2, w // 2, 4 * c), (h // 2, w // 2, 2 * c)
            networks = [get_conv_resnet(large, filters) for _ in range(3)]
            networks += [get_conv_resnet(squeezed, 2 * filters) for _ in range(3)]
            first = tfb.Chain([realnvp_block(networks)], name="scale_0")
            last = [get_conv_resnet(small, 2 * filters) for _ in range(4)]
            couplings = [AffineCouplingLayer(fn, "checkerboard", i % 2) for i, fn in enumerate(last)]
            second = tfb.Chain(couplings[::-1], name="scale_1")
        else:
            raise ValueError(f"Give all three blocks, or none; got {len(given)}.")
        self.bijectors = [first, second]
        super().__init__(event_ndims=3, **{"dtype": None, **kwargs}, name=name)

    def walk(self, value: tf.Tensor, inverse: bool, run: Callable) -> tuple[tf.Tensor, tf.Tensor]:
        first, second = self.bijectors
        if inverse:
            latent, rest = tf.split(value, 2, axis=-1)
            rest, second_log_det = run(second, rest, 3)
            image, log_det = run(first, tf.concat([latent, rest], axis=-1), 3)
            return image, log_det + second_log_det
        h, log_det = run(first, value, 3)
        latent, rest = tf.split(h, 2, axis=-1)
        rest, second_log_det = run(second, rest, 3)
        return tf.concat([latent, rest], axis=-1), log_det + second_log_det

    def _forward_event_shape(self, shape):
        return self.bijectors[0].forward_event_shape(shape)

    def _inverse_event_shape(self, shape):
        return self.bijectors[0].inverse_event_shape(shape)

    def _forward_event_shape_tensor(self, shape):
        return self.bijectors[0].forward_event_shape_tensor(shape)

    def _inverse_event_shape_tensor(self, shape):
        return self.bijectors[0].inverse_event_shape_tensor(shape)


class _WithShapes(FlowBijector):
    def __init__(self, bijector: tfb.Bijector, image_shape: tf.TensorShape, latent_shape: tf.TensorShape):
        self.bijector, self._image_shape, self._latent_shape = bijector, image_shape, latent_shape
        super().__init__(event_ndims=3, dtype=bijector.dtype, name="with_shapes")

    def forward_and_log_det(self, x):
        return forward_and_log_det(self.bijector, x, 3)

    def inverse_and_log_det(self, y):
        return inverse_and_log_det(self.bijector, y, 3)

    def _forward_event_shape(self, shape):
        return shape[:-3].concatenate(self._latent_shape)

    def _inverse_event_shape(self, shape):
        return shape[:-3].concatenate(self._image_shape)

    def _forward_event_shape_tensor(self, shape):
        return tf.concat([shape[:-3], self._latent_shape.as_list()], axis=0)

    def _inverse_event_shape_tensor(self, shape):
        return tf.concat([shape[:-3], self._image_shape.as_list()], axis=0)


@keras.saving.register_keras_serializable(package="tfp_flows")
class RealNVPModel(FlowModel):
    """A `FlowModel` of a standard normal, the multi-scale bijector and the preprocessing.

    `model(images)` is the log-density, in nats. `fit(images)` trains by maximum likelihood, and `compile` takes no
    loss. Of batches `(images, images)`, as in the notebooks, the first part is used.

    Args:
      realnvp_multiscale: Bijector, forward from images to latent values, or a class of one;
        `RealNVPMultiScale(image_shape=...)` if `None`.
      preprocess: Bijector that acts first, forward from pixels in [0, 1]; `get_preprocess_bijector(0.05)` if `None`.
      image_shape: `(H, W, C)`; if `None`, that of `realnvp_multiscale` if known, else (32, 32, 3).
      filters: Filters of the networks of the default bijector.
      name: Name of the model.

    Attributes:
      base, bijector, flow: The base distribution, the map from images to latent values, and the distribution over images.

    Raises:
      ValueError: If `image_shape` is not that of `realnvp_multiscale`; in `build`, for images of another shape.

    Example:
      >>> model = tff.course.RealNVPModel(image_shape=(4, 4, 1), filters=4)
      >>> model.build((None, 4, 4, 1))
      >>> model.sample(2).shape
      TensorShape([2, 4, 4, 1])
    """

    def __init__(
        self,
        realnvp_multiscale: tfb.Bijector | None = None,
        preprocess: tfb.Bijector | None = None,
        *,
        image_shape: Sequence[int] | None = None,
        filters: int = 64,
        name: str = "real_nvp_model",
    ):
        multi_scale = realnvp_multiscale() if isinstance(realnvp_multiscale, type) else realnvp_multiscale
        if multi_scale is None:
            multi_scale = RealNVPMultiScale(image_shape=image_shape, filters=filters)
        made_for = getattr(multi_scale, "image_shape", None)
        image_shape = image_sizes("image_shape", image_shape or made_for or DEFAULT_SHAPE)
        if made_for not in (None, image_shape):
            raise ValueError(f"`image_shape` is {image_shape}, but `realnvp_multiscale` was made for {made_for}.")
        preprocess = get_preprocess_bijector(0.05) if preprocess is None else preprocess
        bijector = tfb.Chain([multi_scale, preprocess])
        # A learner's class may not define its shapes, so a forward pass finds them.
        image, latent = tf.TensorShape(image_shape), bijector.forward(0.5 * tf.ones([1, *image_shape])).shape[1:]
        has_shapes = bijector.forward_event_shape(image) == latent and bijector.inverse_event_shape(latent) == image
        shaped = bijector if has_shapes else _WithShapes(bijector, image, latent)
        base = tfd.Independent(tfd.Normal(tf.zeros(latent), 1.0), len(image_shape))
        super().__init__(FlowDistribution(base, tfb.Invert(shaped)), name=name)
        self.base, self.bijector, self.flow = base, bijector, self.distribution

    def build(self, input_shape=None):
        expected = tuple(self.distribution.event_shape.as_list())
        if input_shape is not None and tuple(input_shape)[1:] != expected:
            raise ValueError(f"`input_shape` must be (None, {', '.join(map(str, expected))}), got {input_shape!r}.")
        self.built = True

    _described = ("realnvp_multiscale", "preprocess")
    _kept = ("name", "image_shape")

    def _parts(self) -> dict[str, Any]:
        multi_scale, preprocess = self.bijector.bijectors
        parts = {"realnvp_multiscale": describe(multi_scale), "preprocess": describe(preprocess)}
        return parts | {"image_shape": self.distribution.event_shape.as_list()}

    def fit(self, x=None, *args, **kwargs):
        if "validation_data" in kwargs:
            kwargs["validation_data"] = _first_of_pairs(kwargs["validation_data"])
        return super().fit(_first_of_pairs(x), *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        return super().evaluate(_first_of_pairs(x), *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        return super().predict(_first_of_pairs(x), *args, **kwargs)


def _first_of_pairs(data):
    if isinstance(data, tf.data.Dataset) and isinstance(data.element_spec, tuple) and len(data.element_spec) == 2:
        return data.map(lambda images, _: images)
    return data


def get_datasets(
    images_train: np.ndarray, images_val: np.ndarray, shuffle_buffer: int, batch_size: int
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """Return training and validation batches of pairs `(images, images)` in float32. Integers are divided by 255.

    Example:
      >>> bytes_ = np.full([9, 4, 4, 1], 255, np.uint8)
      >>> train, validation = tff.course.get_datasets(bytes_, bytes_[:5], 9, 3)
      >>> len(train), len(validation), float(tf.reduce_max(next(iter(train))[0]))
      (3, 2, 1.0)
    """

    def pair(image):
        pixels = tf.cast(image, tf.float32)
        if image.dtype.is_integer:
            pixels /= 255.0
        return pixels, pixels

    train, validation = (tf.data.Dataset.from_tensor_slices(x) for x in (images_train, images_val))
    train = train.shuffle(shuffle_buffer).batch(batch_size)
    return train.map(pair).prefetch(2), validation.batch(batch_size).map(pair).prefetch(2)
