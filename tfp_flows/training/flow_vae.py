"""`FlowVAE`: a variational autoencoder with flows as posterior and prior."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import tracking
from tfp_flows.bijectors.composition import forward_and_log_det
from tfp_flows.bijectors.conditioning import conditional_kwargs, conditional_sizes
from tfp_flows.checks import positive_int
from tfp_flows.data.streams import Stream
from tfp_flows.distribution import FlowDistribution
from tfp_flows.numerics import bound_log_scale
from tfp_flows.seeds import resolve_seed
from tfp_flows.training.annealing import Beta, check_beta, current_beta
from tfp_flows.training.base import TrainedModel, mean_of_rows
from tfp_flows.training.compilation import own_graph
from tfp_flows.training.distribution_checks import bijector_of, check_distribution
from tfp_flows.training.inputs import Inputs

tfd = tfp.distributions


def bernoulli(logits: tf.Tensor) -> tfd.Distribution:
    """Return independent Bernoulli distributions of the entries of each event, from their logits."""
    return tfd.Independent(tfd.Bernoulli(logits=logits), reinterpreted_batch_ndims=len(logits.shape) - 1)


class FlowVAE(TrainedModel):
    """A variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114) with flows as posterior and prior.

    With features `h` of the encoder, `z0 ~ N(loc(h), scale(h)^2)` and `z = f(z0; h)`, the posterior is
    `log q(z | x) = log N(z0) - log |det df/dz0|` (Rezende and Mohamed 2015, arXiv:1505.05770, eq. 13). The model
    maximizes the ELBO `E[log p(x | z)] - E[log q(z | x) - log p(z)]`, from one sample of `z` for each `x`.

    Progress bar and `history.history` hold, in nats per event: `loss` (with `beta`, free bits and the networks'
    regularization losses), `negative_elbo` (without these), `reconstruction` (`-log p(x | z)`) and `kl`
    (`log q(z | x) - log p(z)`).

    Args:
      encoder: Keras 3 model from events `[N, *event_shape]` to features `[N, H]`. This class adds linear maps from the
        features to location and log-scale.
      decoder: Keras 3 model from latent values `[N, latent_size]` to the input of `likelihood`.
      latent_size: Size `L` of the latent values.
      posterior: A flow such as `tff.planar_flow(L, num_layers=20, hidden_units=[], conditional_size=H)`, whose layers
        read the features. Without `conditional_size` they are the same for all events. The encoder's normal
        distribution replaces its base. `None` is the Gaussian posterior. `tff.iaf` samples with density in one pass.
      prior: A distribution of latent values, such as a flow, trained with the model; `None` is the standard normal.
      likelihood: Callable from the decoder's output to a distribution of events; `None` is `bernoulli`, of logits.
      beta: Weight of the KL term: a number, or a function of the step such as `linear_annealing()`.
      free_bits: Nats of the KL term, averaged over a batch, without cost (Kingma et al. 2016, arXiv:1606.04934, section
        C.8, with all latent values as one group).
      seed: Seed of the noise and of the two linear maps.
      name: Name of the model.

    Raises:
      ValueError: If sizes do not fit, or for an argument out of range.

    Example:
      >>> encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "relu")])
      >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])
      >>> flow = tff.planar_flow(2, num_layers=2, hidden_units=[], conditional_size=16)
      >>> model = tff.FlowVAE(encoder, decoder, latent_size=2, posterior=flow, seed=1)
      >>> model.compile(optimizer=keras.optimizers.Adam(1e-3))
      >>> x = np.random.default_rng(0).integers(0, 2, [64, 6]).astype("float32")
      >>> sorted(model.fit(x, batch_size=32, epochs=1, verbose=0).history)
      ['kl', 'loss', 'negative_elbo', 'reconstruction']
      >>> model.sample(3, seed=1).shape, model.log_likelihood(x[:5], num_samples=10, seed=1).shape
      (TensorShape([3, 6]), (5,))
    """

    def __init__(
        self,
        encoder: keras.Model,
        decoder: keras.Model,
        *,
        latent_size: int,
        posterior: tfd.Distribution | None = None,
        prior: tfd.Distribution | None = None,
        likelihood: Callable[[tf.Tensor], tfd.Distribution] | None = None,
        beta: Beta = 1.0,
        free_bits: float = 0.0,
        seed: int | None = None,
        name: str = "flow_vae",
    ):
        for key, network in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(network, keras.Model) or not network.built:
                raise ValueError(
                    f"`{key}` must be a Keras 3 model whose sizes are known, such as a keras.Sequential that begins with "
                    f"keras.Input, got {network!r}."
                )
        size = positive_int("latent_size", latent_size)
        features, event_shape = encoder.output_shape, encoder.input_shape[1:]
        if not isinstance(features, tuple) or len(features) != 2 or features[1] is None:
            raise ValueError(f"`encoder` must return features of shape [N, H], got {features}.")
        if decoder.input_shape != (None, size):
            raise ValueError(f"`decoder` must take latent values of shape [N, {size}], got {decoder.input_shape}.")
        dtype = keras.config.floatx()
        super().__init__(name=name, dtype=dtype)
        self._event_dtype = tf.as_dtype(dtype)
        self.encoder, self.decoder, self.latent_size = encoder, decoder, size
        self.seed = resolve_seed(seed)
        initializer = keras.initializers.GlorotUniform(self.seed % 2**31)
        self.loc_layer = keras.layers.Dense(size, kernel_initializer=initializer, name="loc")
        self.log_scale_layer = keras.layers.Dense(size, kernel_initializer="zeros", name="log_scale")
        for layer in (self.loc_layer, self.log_scale_layer):
            layer.build((None, features[1]))
        if posterior is not None:
            self._check_posterior(posterior, features[1])
        if prior is None:
            prior = tfd.MultivariateNormalDiag(tf.zeros([size], dtype), tf.ones([size], dtype))
        self._check_latent("prior", prior)
        if getattr(prior, "conditional_size", None) is not None:
            raise ValueError("`prior` must not be conditional.")
        self.posterior, self.prior = posterior, prior
        self._likelihood = bernoulli if likelihood is None else likelihood
        self.beta = check_beta(beta)
        if not (free_bits >= 0 and np.isfinite(free_bits)):
            raise ValueError(f"`free_bits` must be a finite number >= 0, got {free_bits!r}.")
        self.free_bits = float(free_bits)
        self._inputs = Inputs(tuple(event_shape), self._event_dtype, None, density=False)
        # Keras tracks encoder and decoder as attributes, but not the networks inside the flows. The encoder replaces the
        # base of the posterior.
        parts = [getattr(posterior, k, None) for k in ("bijector", "preprocess_condition", "_preprocess", "_encoder")]
        found = tracking.find(*parts, self.prior, self._likelihood)
        self._adopt(found._replace(layers=[n for n in found.layers if n not in (encoder, decoder)]))
        self._networks = [*self._networks, encoder, decoder]
        self._log_means("negative_elbo", "reconstruction", "kl")
        self._compiled_bounds = own_graph(self._importance_bounds)
        self.built = True

    def _check_latent(self, name: str, flow) -> None:
        check_distribution(name, flow)
        if flow.event_shape.as_list() != [self.latent_size] or flow.dtype != self._event_dtype:
            raise ValueError(
                f"`{name}` must have event shape [{self.latent_size}] and dtype {self._event_dtype.name}, got "
                f"{flow.event_shape} and {tf.as_dtype(flow.dtype).name}."
            )

    def _check_posterior(self, flow, features: int) -> None:
        self._check_latent("posterior", flow)
        if bijector_of(flow) is None:
            raise ValueError(f"`posterior` must be a flow: a distribution with a bijector, got {flow}.")
        sizes = conditional_sizes(flow.bijector)
        if isinstance(flow, FlowDistribution) and sizes:
            sizes = {flow.conditional_size}
        if sizes - {features}:
            raise ValueError(
                f"`posterior` takes conditions of sizes {sorted(sizes)}, the encoder gives {features} features."
            )

    def encode(self, x, seed, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Return samples `z` of the posterior, `[N, L]`, one for each event of `x`, and `log q(z | x)`, `[N]`, in nats.

        `seed` is a stateless seed, such as `(1, 2)`; `training` is passed to the encoder.
        """
        return self._draw(*self._heads(x, training), seed)

    def _heads(self, x, training: bool) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        h = self.encoder(x, training=training)
        return h, self.loc_layer(h), bound_log_scale(self.log_scale_layer(h))

    def _draw(self, h, loc, log_scale, seed) -> tuple[tf.Tensor, tf.Tensor]:
        noise = tf.random.stateless_normal(tf.shape(loc), seed, dtype=loc.dtype)
        log_q = tf.reduce_sum(-0.5 * tf.square(noise) - 0.5 * np.log(2.0 * np.pi) - log_scale, axis=-1)
        z = loc + tf.exp(log_scale) * noise
        if self.posterior is None:
            return z, log_q
        bijector = self.posterior.bijector
        if isinstance(self.posterior, FlowDistribution) and self.posterior.conditional_size is not None:
            kwargs = self.posterior.bijector_kwargs(h)  # applies `preprocess_condition`
        else:
            kwargs = conditional_kwargs(bijector, h)
        z, log_det = forward_and_log_det(bijector, z, 1, **kwargs)
        return z, log_q - log_det

    def likelihood(self, z, training: bool = False) -> tfd.Distribution:
        """Return the distribution of events given latent values `[N, L]`."""
        return self._likelihood(self.decoder(z, training=training))

    def _log_likelihood(self, x, z, training: bool) -> tf.Tensor:
        """Return `log p(x | z)`, `[N]`. Raise a `ValueError` if the likelihood is not over whole events."""
        likelihood = self.likelihood(z, training)
        if not likelihood.event_shape.is_compatible_with(x.shape[1:]):
            raise ValueError(
                f"`likelihood` must be a distribution over events of shape {x.shape[1:]}, got event shape "
                f"{likelihood.event_shape} and batch shape {likelihood.batch_shape}: does it need tfd.Independent, and does "
                "the decoder's output have the shape of the events?"
            )
        return likelihood.log_prob(x)

    def loss_terms(self, batch, seed, training):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
        z, log_q = self.encode(x, seed, training)
        reconstruction, kl = -self._log_likelihood(x, z, training), log_q - self.prior.log_prob(z)
        terms = {"negative_elbo": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
        return {"loss": reconstruction + current_beta(self, training) * kl, **terms}

    def total_loss(self, terms, training):
        if not training or self.free_bits == 0.0:
            return super().total_loss(terms, training)
        cost = mean_of_rows(terms["kl"])
        cost = tf.where(cost > self.free_bits, cost, tf.cast(self.free_bits, cost.dtype))
        return mean_of_rows(terms["reconstruction"]) + current_beta(self, training) * cost

    def fit(self, x=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """Maximize the ELBO. Return the Keras `History`, in nats per event.

        Args:
          x: Events `[N, *event_shape]`, or a `tf.data.Dataset` of batches of events.
          batch_size: Rows in a step; 32 if `None`.
          epochs, verbose, callbacks, kwargs: Options of `keras.Model.fit`; `validation_data` is events.

        Raises:
          ValueError: For data that cannot be trained on; the message names what is wrong and where.
          FloatingPointError: If the loss turns NaN or infinite. The weights are those before that step.
        """
        if x is None:
            raise ValueError("`x` must be given: an array, or a tf.data.Dataset of batches.")
        for key in ("y", "sample_weight", "class_weight"):
            if kwargs.pop(key, None) is not None:
                raise ValueError(f"`{key}` must be left out.")
        x, strategy = self._real(x), self.distribute_strategy
        data, order, kwargs = self._inputs.for_training(x, None, batch_size, kwargs, strategy)
        return self._fit(data, callbacks, order, epochs=epochs, verbose=verbose, **kwargs)

    def evaluate(self, x, batch_size=None, verbose="auto", **kwargs):
        """Return the loss (the negative ELBO) and its parts, in nats per event."""
        return super().evaluate(self._inputs.dataset(self._real(x), None, batch_size), verbose=verbose, **kwargs)

    def _real(self, x):
        """Convert arrays of bits or integers to floating point. Check that a dataset yields events alone."""
        if isinstance(x, (tf.data.Dataset, Stream)):
            if isinstance(x.element_spec, (tuple, list)) and len(x.element_spec) > 1:
                raise ValueError("`x` must yield events alone: a FlowVAE takes no conditions and no weights.")
            return x
        if isinstance(x, keras.utils.PyDataset) or hasattr(x, "__next__"):
            return x
        array = np.asarray(x)
        return array.astype(self._event_dtype.as_numpy_dtype) if array.dtype.kind in "biu" else array

    def predict(self, *args, **kwargs):
        """Raise a `NotImplementedError`: use `reconstruct`, `log_likelihood` or `sample`."""
        raise NotImplementedError("A FlowVAE predicts nothing: use reconstruct(x), log_likelihood(x) or sample(n).")

    def sample(self, n: int, seed: int | None = None, mean: bool = True) -> tf.Tensor:
        """Return `n` events, `[n, *event_shape]`: means of the likelihood, or, with `mean=False`, samples of it."""
        seeds = self._seeds(seed)
        return self._decoded(self.prior.sample(positive_int("n", n), seed=seeds[0]), seeds[1], mean)

    def reconstruct(self, x, seed: int | None = None, mean: bool = True) -> tf.Tensor:
        """Encode and decode `x`, `[N, *event_shape]`. Return means of the likelihood, or, with `mean=False`, samples of it."""
        (x,) = self._inputs.check(self._real(x), None)
        seeds = self._seeds(seed)
        return self._decoded(self.encode(tf.constant(x), seeds[0])[0], seeds[1], mean)

    def _decoded(self, z, seed, mean: bool) -> tf.Tensor:
        likelihood = self.likelihood(z)
        return likelihood.mean() if mean else tf.cast(likelihood.sample(seed=seed), self._event_dtype)

    @staticmethod
    def _seeds(seed: int | None) -> tf.Tensor:
        return tfp.random.split_seed(tf.constant([resolve_seed(seed) % 2**31, 0], tf.int32), 2)

    def log_likelihood(self, x, num_samples: int = 100, seed: int | None = None, batch_size: int = 100) -> np.ndarray:
        """Return importance-weighted estimates of `log p(x)` (Burda et al. 2015, arXiv:1509.00519), `[N]`, in nats.

        They are lower bounds on average, tighter for a larger `num_samples`. Cost: `num_samples` decoder passes per event.
        """
        (x,) = self._inputs.check(self._real(x), None)
        seed, n = resolve_seed(seed), positive_int("num_samples", num_samples)
        size = positive_int("batch_size", batch_size)
        bounds = []
        for i, start in enumerate(range(0, len(x), size)):
            batch, stateless = tf.constant(x[start : start + size]), tf.constant([seed % 2**31, i], tf.int32)
            bounds.append(self._compiled_bounds(batch, tf.constant(n), stateless).numpy())
        return np.concatenate(bounds)

    def _importance_bounds(self, x, n, seed):
        h, loc, log_scale = self._heads(x, training=False)

        def one(i):
            z, log_q = self._draw(h, loc, log_scale, tf.random.experimental.stateless_fold_in(seed, i))
            return self._log_likelihood(x, z, training=False) + self.prior.log_prob(z) - log_q

        log_w = tf.map_fn(one, tf.range(n), fn_output_signature=tf.TensorSpec([None], self._event_dtype))
        return tf.reduce_logsumexp(log_w, axis=0) - tf.math.log(tf.cast(n, log_w.dtype))

    def get_config(self) -> dict:
        raise ValueError(
            "A FlowVAE cannot be described in a .keras file. Keep its weights with model.save_weights('x.weights.h5'), and "
            "load them into a model that the same code has built."
        )
