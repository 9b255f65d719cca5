"""One adapter for each library: the same flow, the same four operations, everything synchronized on return.

An adapter is `make(case)` -> an object with `train_step(batch)`, `log_prob(x)`, `sample(n)`; those of the quality runs have
`fit(train, steps, batch_size)` as well, which waits for the last step. Libraries are imported inside of the functions: each
process that measures imports one of them.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
    """A flow to measure."""

    flow: str  # "maf", "iaf", "real_nvp" or "spline"
    event_size: int
    num_layers: int
    hidden_units: tuple[int, ...]
    learning_rate: float = 1e-3
    steps: int = 0  # of the cosine schedule; 0 for a constant rate

    @property
    def title(self) -> str:
        return f"{self.flow} D={self.event_size}, {self.num_layers} x {list(self.hidden_units)}"


# The flows of the speed runs, by name.
CASES = {
    f"{case.flow}-{case.event_size}": case
    for case in (
        Case("maf", 2, 5, (64, 64)),
        Case("maf", 6, 5, (128, 128)),
        Case("maf", 43, 5, (512, 512)),
        Case("maf", 784, 1, (1024, 1024)),
        Case("iaf", 43, 5, (512, 512)),
        Case("real_nvp", 2, 8, (64, 64)),
        Case("real_nvp", 6, 8, (128, 128)),
        Case("real_nvp", 43, 10, (256, 256)),
        Case("real_nvp", 784, 2, (1024, 1024)),
    )
}


def batches(x: np.ndarray, size: int, steps: int, seed: int = 0):
    """`steps` shuffled batches of the rows of `x`."""
    rng = np.random.default_rng(seed)
    order = np.empty(0, int)
    for _ in range(steps):
        if len(order) < size:
            order = rng.permutation(len(x))
        rows, order = order[:size], order[size:]
        yield x[rows]


class OursFlow:
    """tfp_flows: the recipe under `FlowModel`, as the README has it; or, as TFP's, compiled by XLA for each size."""

    def __init__(self, case: Case, jit: bool = False):
        import keras
        import tensorflow as tf

        import tfp_flows as tff

        self.tf = tf
        keras.utils.set_random_seed(1)
        recipe = {"maf": tff.maf, "iaf": tff.iaf, "real_nvp": tff.real_nvp, "spline": tff.spline_autoregressive}[
            case.flow
        ]
        self.flow = recipe(case.event_size, num_layers=case.num_layers, hidden_units=case.hidden_units)
        self.model = tff.FlowModel(self.flow)
        rate = (
            keras.optimizers.schedules.CosineDecay(case.learning_rate, case.steps) if case.steps else case.learning_rate
        )
        self.model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
        self.model.optimizer.build(self.model.trainable_variables)
        self.step = None
        self._log_prob, self._sample = self.model.log_prob, lambda n: self.model.sample(n, seed=1)
        if jit:
            self._log_prob = tf.function(lambda x: self.flow.log_prob(x), jit_compile=True)
            self._sample = tf.function(lambda n: self.flow.sample(n, seed=(1, 2)), jit_compile=True)

    def train_step(self, batch):
        if self.step is None:
            self.step = self.tf.function(self.model.train_step, jit_compile=True)
        self.step(self.tf.constant(batch))["loss"].numpy()

    def log_prob(self, x):
        return self._log_prob(self.tf.constant(x)).numpy()

    def eager_log_prob(self, x):
        return self.flow.log_prob(x).numpy()

    def sample(self, n):
        return self._sample(n).numpy()

    def fit(self, train, steps, batch_size):
        epochs = max(1, round(steps * batch_size / len(train)))
        self.model.fit(train, batch_size=batch_size, epochs=epochs, verbose=0)


class TfpFlow:
    """TFP with its own networks and templates; `mode` is "eager", "function" or "jit"."""

    def __init__(self, case: Case, mode: str):
        import tensorflow as tf
        import tensorflow_probability as tfp
        import tf_keras

        tfb, tfd = tfp.bijectors, tfp.distributions
        self.tf = tf
        tf_keras.utils.set_random_seed(1)
        d = case.event_size
        layers = []
        for i in range(case.num_layers):
            if case.flow in ("maf", "iaf"):
                order = ("left-to-right", "right-to-left")[i % 2]
                network = tfb.AutoregressiveNetwork(
                    2, [d], hidden_units=list(case.hidden_units), input_order=order, activation="relu"
                )
                network.build([None, d])
                layer = tfb.MaskedAutoregressiveFlow(network, name=f"maf{i}")
                layers.append(layer if case.flow == "maf" else tfb.Invert(layer))
            else:
                masked = d // 2 if i % 2 == 0 else d // 2 - d
                layers.append(self._coupling(tf, tfb, tf_keras, masked, d, case.hidden_units))
        base = tfd.MultivariateNormalDiag(tf.zeros(d), tf.ones(d))
        self.flow = tfd.TransformedDistribution(base, tfb.Chain(layers[::-1]))
        self.flow.log_prob(tf.zeros([1, d]))
        self.variables = self.flow.trainable_variables
        rate = case.learning_rate
        if case.steps:
            rate = tf_keras.optimizers.schedules.CosineDecay(rate, case.steps)
        self.optimizer = tf_keras.optimizers.Adam(rate, global_clipnorm=1.0)
        self.optimizer.build(self.variables)
        compile_it: Callable = {
            "eager": lambda f: f,
            "function": tf.function,
            "jit": lambda f: tf.function(f, jit_compile=True),
        }[mode]
        self._step = compile_it(self._train_step)
        self._log_prob = compile_it(lambda x: self.flow.log_prob(tf.identity(x)))
        self._sample = compile_it(lambda n: self.flow.sample(n, seed=(1, 2)))

    @staticmethod
    def _coupling(tf, tfb, tf_keras, masked, d, hidden_units):
        units = d - abs(masked)
        network = tf_keras.Sequential(
            [tf_keras.layers.Dense(n, "relu") for n in hidden_units] + [tf_keras.layers.Dense(2 * units)]
        )
        network.build([None, abs(masked)])

        def shift_and_log_scale(x, output_units):
            del output_units
            return tf.split(network(x), 2, axis=-1)

        bijector = tfb.RealNVP(num_masked=masked, shift_and_log_scale_fn=shift_and_log_scale)
        bijector._network = network  # TFP sees variables of attributes only
        return bijector

    def _train_step(self, batch):
        with self.tf.GradientTape() as tape:
            loss = -self.tf.reduce_mean(self.flow.log_prob(self.tf.identity(batch)))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, self.variables), self.variables, strict=True))
        return loss

    def train_step(self, batch):
        self._step(self.tf.constant(batch)).numpy()

    def log_prob(self, x):
        return self._log_prob(self.tf.constant(x)).numpy()

    def eager_log_prob(self, x):
        return self.flow.log_prob(self.tf.constant(x)).numpy()

    def sample(self, n):
        return self._sample(n).numpy()

    def fit(self, train, steps, batch_size):
        for batch in batches(train, batch_size, steps):
            loss = self._step(self.tf.constant(batch))
        loss.numpy()


class TorchFlow:
    """Base of zuko and nflows: a module, Adam, and a norm to clip."""

    def __init__(self, case: Case, module):
        import torch

        self.torch, self.module, self.size = torch, module, case.event_size
        self.optimizer = torch.optim.Adam(module.parameters(), lr=case.learning_rate)
        self.schedule = None
        if case.steps:
            self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, case.steps)

    def _log_prob(self, x):
        raise NotImplementedError

    def train_step(self, batch):
        self.optimizer.zero_grad()
        loss = -self._log_prob(self.torch.from_numpy(batch)).mean()
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()

    def log_prob(self, x):
        with self.torch.no_grad():
            return self._log_prob(self.torch.from_numpy(x)).numpy()

    eager_log_prob = log_prob

    def fit(self, train, steps, batch_size):
        for batch in batches(train, batch_size, steps):
            self.train_step(batch)


class ZukoFlow(TorchFlow):
    def __init__(self, case: Case):
        import torch
        import zuko

        torch.manual_seed(1)
        kind = {"real_nvp": zuko.flows.RealNVP, "spline": zuko.flows.NSF}.get(case.flow, zuko.flows.MAF)
        flow = kind(case.event_size, transforms=case.num_layers, hidden_features=case.hidden_units)
        if case.flow == "iaf":
            flow.transform = flow.transform.inv
        super().__init__(case, flow)

    def _log_prob(self, x):
        return self.module().log_prob(x)

    def sample(self, n):
        with self.torch.no_grad():
            return self.module().sample((n,)).numpy()


class NflowsFlow(TorchFlow):
    def __init__(self, case: Case):
        import torch
        from nflows import distributions, flows, nn, transforms

        class _WithContext(torch.nn.Module):
            """Couplings hand a context to their network, which this one does not take."""

            def __init__(self, network):
                super().__init__()
                self.network = network

            def forward(self, inputs, context=None):
                return self.network(inputs)

        torch.manual_seed(1)
        d, hidden, blocks = case.event_size, case.hidden_units[0], len(case.hidden_units)
        parts = []
        for i in range(case.num_layers):
            if case.flow in ("maf", "iaf"):
                part = transforms.MaskedAffineAutoregressiveTransform(
                    d, hidden, num_blocks=blocks - 1, use_residual_blocks=False
                )
                parts.append(part if case.flow == "maf" else transforms.InverseTransform(part))
            elif case.flow == "spline":
                parts.append(
                    transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                        d,
                        hidden,
                        num_bins=8,
                        tails="linear",
                        tail_bound=5.0,
                        num_blocks=blocks - 1,
                        use_residual_blocks=False,
                    )
                )
            else:
                mask = torch.arange(d) < d // 2 if i % 2 == 0 else torch.arange(d) >= d // 2
                parts.append(
                    transforms.AffineCouplingTransform(
                        mask.int(),
                        lambda inputs, outputs: _WithContext(nn.nets.MLP([inputs], [outputs], list(case.hidden_units))),
                    )
                )
            if case.flow != "real_nvp":
                parts.append(transforms.ReversePermutation(d))
        super().__init__(case, flows.Flow(transforms.CompositeTransform(parts), distributions.StandardNormal([d])))

    def _log_prob(self, x):
        return self.module.log_prob(x)

    def sample(self, n):
        with self.torch.no_grad():
            return self.module.sample(n).numpy()


class FlowjaxFlow:
    """flowjax under `eqx.filter_jit`, as its own `fit_to_data` compiles it."""

    def __init__(self, case: Case):
        import equinox as eqx
        import jax
        import jax.numpy as jnp
        import optax
        import paramax
        from flowjax import bijections, distributions, flows

        self.jax, self.jnp = jax, jnp
        key = jax.random.key(1)
        build = flows.coupling_flow if case.flow == "real_nvp" else flows.masked_autoregressive_flow
        options = (
            {"transformer": bijections.RationalQuadraticSpline(knots=8, interval=5)} if case.flow == "spline" else {}
        )
        self.flow = build(
            key,
            base_dist=distributions.Normal(jnp.zeros(case.event_size)),
            flow_layers=case.num_layers,
            nn_width=case.hidden_units[0],
            nn_depth=len(case.hidden_units),
            invert=case.flow != "iaf",
            **options,
        )
        rate = optax.cosine_decay_schedule(case.learning_rate, case.steps) if case.steps else case.learning_rate
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))

        def is_fixed(leaf):
            return isinstance(leaf, paramax.NonTrainable)

        self.params, static = eqx.partition(self.flow, eqx.is_inexact_array, is_leaf=is_fixed)
        self.state = optimizer.init(self.params)

        @eqx.filter_jit
        def step(params, state, batch):
            def loss(params):
                return -paramax.unwrap(eqx.combine(params, static)).log_prob(batch).mean()

            value, gradient = eqx.filter_value_and_grad(loss)(params)
            updates, state = optimizer.update(gradient, state, params)
            return eqx.apply_updates(params, updates), state, value

        self._step = step
        self._log_prob = eqx.filter_jit(lambda params, x: paramax.unwrap(eqx.combine(params, static)).log_prob(x))
        self._sample = eqx.filter_jit(
            lambda params, key, n: paramax.unwrap(eqx.combine(params, static)).sample(key, (n,))
        )
        self._eager = lambda x: paramax.unwrap(eqx.combine(self.params, static)).log_prob(x)

    def train_step(self, batch):
        self.params, self.state, loss = self._step(self.params, self.state, self.jnp.asarray(batch))
        loss.block_until_ready()

    def log_prob(self, x):
        return np.asarray(self._log_prob(self.params, self.jnp.asarray(x)))

    def eager_log_prob(self, x):
        return np.asarray(self._eager(self.jnp.asarray(x)))

    def sample(self, n):
        return np.asarray(self._sample(self.params, self.jax.random.key(2), n))

    def fit(self, train, steps, batch_size):
        for batch in batches(train, batch_size, steps):
            self.params, self.state, _ = self._step(self.params, self.state, self.jnp.asarray(batch))
        self.jax.block_until_ready(self.params)


LIBRARIES: dict[str, tuple[str, Callable]] = {
    "tfp_flows": ("tfp_flows", OursFlow),
    "tfp_flows jit_compile": ("tfp_flows", lambda case: OursFlow(case, jit=True)),
    "TFP eager": ("tensorflow_probability", lambda case: TfpFlow(case, "eager")),
    "TFP tf.function": ("tensorflow_probability", lambda case: TfpFlow(case, "function")),
    "TFP jit_compile": ("tensorflow_probability", lambda case: TfpFlow(case, "jit")),
    "zuko": ("zuko", ZukoFlow),
    "nflows": ("nflows", NflowsFlow),
    "flowjax": ("flowjax", FlowjaxFlow),
}


def installed(library: str) -> bool:
    return importlib.util.find_spec(LIBRARIES[library][0]) is not None


def chosen_libraries(names: list[str] | None) -> list[str]:
    libraries = names or [library for library in LIBRARIES if installed(library)]
    for library in LIBRARIES:
        if library not in libraries:
            print(f"without {library}" + ("" if installed(library) else " (not installed)"), file=sys.stderr)
    return libraries
