"""Deliberately broken bijectors: each must fail the check that is there for it."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff
from tfp_flows import testing

tfb, tfd = tfp.bijectors, tfp.distributions


class Affine(tfb.Bijector):
    """A correct map, of which the others break one thing."""

    def __init__(self):
        self.log_scale = tf.Variable([0.3, -0.4, 0.5], dtype=tf.float64)
        self.shift = tf.Variable([1.0, 2.0, -1.0], dtype=tf.float64)
        super().__init__(forward_min_event_ndims=1, dtype=tf.float64)

    def _forward(self, x):
        return tf.sinh(x) * tf.exp(self.log_scale) + self.shift

    def _inverse(self, y):
        return tf.asinh((y - self.shift) * tf.exp(-self.log_scale))

    def _forward_log_det_jacobian(self, x):
        return tf.reduce_sum(self.log_scale + tf.math.log(tf.cosh(x)), axis=-1)


class SignFlipped(Affine):
    def _forward_log_det_jacobian(self, x):
        return -super()._forward_log_det_jacobian(x)


class OneSidedLogDet(Affine):
    def _inverse_log_det_jacobian(self, y):
        return super()._forward_log_det_jacobian(y)


class WrongInverse(Affine):
    def _inverse(self, y):
        return super()._inverse(y) + 1e-5


class Identity(Affine):
    def _forward(self, x):
        return x + 0.0 * tf.reduce_sum(self.shift * self.log_scale)

    def _inverse(self, y):
        return y + 0.0 * tf.reduce_sum(self.shift * self.log_scale)

    def _forward_log_det_jacobian(self, x):
        return 0.0 * x[..., 0]


class Untracked(Affine):
    """A variable where no search finds it, as `tf.compat.v1` templates keep theirs."""

    HIDDEN = [tf.Variable(0.25, dtype=tf.float64)]

    def _forward(self, x):
        return super()._forward(x) * tf.exp(type(self).HIDDEN[0])

    def _inverse(self, y):
        return super()._inverse(y * tf.exp(-type(self).HIDDEN[0]))

    def _forward_log_det_jacobian(self, x):
        return super()._forward_log_det_jacobian(x) + 3.0 * type(self).HIDDEN[0]


class Unused(Affine):
    def __init__(self):
        self.unused = tf.Variable(1.0, dtype=tf.float64)
        super().__init__()


class NoGradient(Affine):
    def _forward(self, x):
        return tf.stop_gradient(super()._forward(x))


class NanGradient(Affine):
    """The branch that `where` does not take has an infinite derivative."""

    def _forward(self, x):
        return super()._forward(x) + tf.where(self.shift > 100.0, tf.math.log(0.0 * self.shift), 0.0)


class BatchSum(Affine):
    def _forward_log_det_jacobian(self, x):
        return tf.reduce_sum(super()._forward_log_det_jacobian(x)) + 0.0 * x[..., 0]


class EagerOnly(Affine):
    def _forward(self, x):
        return super()._forward(x) + (0.0 if tf.executing_eagerly() else 1.0)


class SharesCache(tfb.Bijector):
    """Hands its constructor's arguments on, though its variables are not among them."""

    def __init__(self, size):
        parameters = dict(locals())
        self.shift = tf.Variable(tf.zeros([size], tf.float64))
        super().__init__(forward_min_event_ndims=1, dtype=tf.float64, parameters=parameters)

    @classmethod
    def _parameter_properties(cls, dtype):
        return {}

    def _forward(self, x):
        return x + self.shift

    def _inverse(self, y):
        return y - self.shift

    def _forward_log_det_jacobian(self, x):
        return tf.zeros(tf.shape(x)[:-1], x.dtype)


class Leaky(Affine):
    """Autoregressive, but for one entry."""

    def _forward(self, x):
        return super()._forward(x) + 0.1 * x[..., 2:] * tf.constant([1.0, 0.0, 0.0], x.dtype)

    def _inverse(self, y):
        last = super()._inverse(y)[..., 2:]
        return super()._inverse(y - 0.1 * last * tf.constant([1.0, 0.0, 0.0], y.dtype))


X = testing.draw_events([3])
LOWER = np.tril(np.ones([3, 3], bool))

BROKEN = [
    (SignFlipped, lambda b: testing.check_log_det(b, X), "log_det"),
    (OneSidedLogDet, lambda b: testing.check_log_det(b, X), "log_det"),
    (WrongInverse, lambda b: testing.check_round_trip(b, X), "inverse"),
    (Identity, lambda b: testing.check_moves(b, X), "identity"),
    (Untracked, lambda b: testing.check_tracking(b, [3]), "trainable_variables"),
    (Unused, lambda b: testing.check_tracking(b, [3]), "trainable_variables"),
    (Unused, lambda b: testing.check_gradients(b, X), "no gradient"),
    (NoGradient, lambda b: testing.check_gradients(b, X), "gradient"),
    (NanGradient, lambda b: testing.check_gradients(b, X), "not finite"),
    (BatchSum, lambda b: testing.check_batch_shapes(b, [3]), "log-det"),
    (EagerOnly, lambda b: testing.check_compilation(b, X), "differs from eager"),
    (Leaky, lambda b: testing.check_jacobian_zeros(b, X, np.eye(3, dtype=bool)), "depends on"),
    (Affine, lambda b: testing.check_jacobian_zeros(b, X, LOWER), "ignores"),
]


@pytest.mark.parametrize(("broken", "check", "message"), BROKEN, ids=lambda v: getattr(v, "__name__", ""))
def test_broken_bijector_fails(broken, check, message):
    with pytest.raises(AssertionError, match=message):
        check(broken())


def test_shared_cache_fails():
    with pytest.raises(AssertionError, match="share its cache"):
        testing.check_instances_are_distinct(lambda: SharesCache(3), [3])


def test_correct_bijector_passes():
    testing.check_bijector(Affine, [3])
    testing.check_jacobian_zeros(Affine(), X, np.eye(3, dtype=bool))


@pytest.mark.parametrize("broken", [SignFlipped, WrongInverse, Identity, NoGradient, BatchSum, EagerOnly])
def test_the_whole_check_fails_too(broken):
    with pytest.raises(AssertionError):
        testing.check_bijector(broken, [3])


def test_unnormalized_density_fails():
    class Doubled(tfd.MultivariateNormalDiag):
        def _log_prob(self, x):
            return super()._log_prob(x) + 0.05

    with pytest.raises(AssertionError, match="integrates"):
        testing.check_normalized(Doubled(tf.zeros(2)))


def test_leaky_mask_of_a_made_fails():
    template = tff.masked_autoregressive_template([8], event_size=3, seed=1, dtype=tf.float64)
    template.fn._masks[-1] = np.ones_like(template.fn._masks[-1])
    bijector = tff.MaskedAutoregressiveFlow(template)
    testing.redraw_weights(bijector)
    with pytest.raises(AssertionError, match="depends on"):
        testing.check_jacobian_zeros(bijector, X, LOWER)


def test_fit_that_moves_nothing_fails():
    frozen = tf.Variable([1.0, 1.0])
    unused = tf.Variable([3.0])

    class Lazy(tfd.MultivariateNormalDiag):
        def __init__(self):
            self.unused = unused
            super().__init__(frozen)

        def _log_prob(self, x):
            return super()._log_prob(x) + 0.0 * tf.reduce_sum(tf.stop_gradient(self.unused))

    with pytest.raises(AssertionError, match="did not move"):
        testing.check_fit_moves_every_weight(Lazy(), np.random.default_rng(0).normal(size=[64, 2]).astype("f"))
