"""A run that is killed and started again ends with the weights of one that was not."""

import functools
import json
import os
import pathlib
import random
import subprocess
import sys
import time
import unittest.mock
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from stopping import Stop

import tfp_flows as tff
from tfp_flows.training.batch_order import Order
from tfp_flows.training.compilation import steps_per_execution

tfd = tfp.distributions
X = tff.data.moons().sample(100, seed=0)
BATCH = 16  # seven batches, the last of four rows
EPOCHS = 4


def density():
    return tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[8], normalization="actnorm", seed=1))


def with_dropout():
    net = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(8, "tanh"), keras.layers.Dropout(0.3, seed=3), keras.layers.Dense(2)]
    )
    flow = tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)),
        tfp.bijectors.RealNVP(1, shift_and_log_scale_fn=tff.as_template(net)),
    )
    return tff.FlowModel(flow)


def of_levels():
    return tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[8], seed=1), dequantize=8, seed=4)


def variational():
    flow = tff.maf(2, num_layers=1, hidden_units=[8], seed=1)
    return tff.VariationalFlow(flow, lambda z: -0.5 * tf.reduce_sum((z - 1.0) ** 2, axis=-1), sample_size=32, seed=5)


def autoencoder():
    dense = keras.layers.Dense
    encoder = keras.Sequential([keras.Input((2,)), dense(8, "tanh"), dense(4)])
    decoder = keras.Sequential([keras.Input((2,)), dense(8, "tanh"), dense(2)])
    return tff.FlowVAE(encoder, decoder, latent_size=2, likelihood=lambda h: tfd.MultivariateNormalDiag(h), seed=6)


def fit(model, callbacks=(), **options):
    if isinstance(model, tff.VariationalFlow):
        return model.fit(steps_per_epoch=7, epochs=EPOCHS, verbose=0, callbacks=list(callbacks))
    x = np.floor(np.clip(X + 2, 0, 3.9) * 2).astype(np.uint8) if getattr(model, "dequantize", None) else X
    return model.fit(x, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=list(callbacks), **options)


def compiled(build):
    model = build()
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    return model


@functools.cache
def undisturbed(build, options=()):
    """The model after a run that nothing stopped, and its last loss. Tests compare with it and leave it as it is."""
    keras.utils.set_random_seed(7)
    model = compiled(build)
    history = fit(model, [Stop(-1)], **dict(options))
    return model, history.history["loss"][-1]


def same(model, other):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


CASES = [
    # Whole epochs and torn files are below, short epochs in `test_every_pass_has_every_row_once_in_an_order_of_its_own`.
    pytest.param(density, "epoch", [10], {}, marks=pytest.mark.slow),
    pytest.param(density, 1, [8], {"steps_per_epoch": 5}, marks=pytest.mark.slow),
    (density, 3, [13], {"validation_split": 0.1}),
    (density, 2, [11], {"steps_per_epoch": 10, "shuffle": False}),
    (with_dropout, 2, [3, 11], {}),
    (of_levels, 2, [11], {}),
    (variational, 3, [15], {}),
    (autoencoder, 3, [15], {}),
]


@pytest.mark.parametrize(("build", "freq", "stops", "options"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_a_run_goes_on_as_if_nothing_had_been(tmp_path, build, freq, stops, options):
    whole, loss = undisturbed(build, tuple(options.items()))
    backup = functools.partial(keras.callbacks.BackupAndRestore, str(tmp_path / "backup"), save_freq=freq)
    for steps in stops:
        keras.utils.set_random_seed(7)
        model = compiled(build)
        with pytest.raises(KeyboardInterrupt):
            fit(model, [backup(), Stop(steps)], **options)
    keras.utils.set_random_seed(8)  # the order of the rows comes from the file
    model = compiled(build)
    for w in model.trainable_weights:
        w.assign(w.value + 0.1)  # and so do the weights
    rest = fit(model, [backup(), Stop(-1)], **options)
    same(model, whole)
    assert rest.history["loss"][-1] == pytest.approx(loss)
    assert not (tmp_path / "backup").exists()
    # The next `fit` begins at epoch 0 again, which Keras' own would not.
    assert rest.epoch[0] > 0
    assert fit(model, **options).epoch == list(range(EPOCHS))


def test_only_a_resumed_epoch_may_be_shorter_in_silence(tmp_path):
    """The epoch that a run resumes in has fewer steps left, which is no lack of data; in the next run it would be."""
    callbacks = [keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=3)]
    model = compiled(density)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [*callbacks, Stop(11)])
    data = tf.data.Dataset.from_tensor_slices(X).batch(BATCH).filter(lambda x: True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*ran out of data")
        assert fit(model, [*callbacks, Stop(-1)]).epoch == [1, 2, 3]
        with pytest.raises(UserWarning, match="ran out of data"):
            model.fit(data, epochs=2, verbose=0)


def test_ours_goes_on_where_a_file_beside_the_weights_is_torn(tmp_path):
    whole, _ = undisturbed(density)
    backup = tff.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    keras.utils.set_random_seed(7)
    torn = compiled(density)
    with pytest.raises(KeyboardInterrupt):
        fit(torn, [backup, Stop(9)])
    (tmp_path / "backup" / "training_metadata.json").write_text('{"epo')
    model = compiled(density)
    fit(model, [tff.callbacks.BackupAndRestore(str(tmp_path / "backup")), Stop(-1)])
    same(model, whole)


def test_an_epoch_that_the_file_beside_the_weights_does_not_know_is_not_repeated(tmp_path):
    """Killed between the two files that Keras writes: the weights are of a later epoch than the other says."""
    whole, _ = undisturbed(density)
    folder = tmp_path / "backup"
    keras.utils.set_random_seed(7)
    model = compiled(density)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [keras.callbacks.BackupAndRestore(str(folder)), Stop(15)])
    note = folder / "training_metadata.json"
    assert json.loads(note.read_text())["epoch"] == 2
    note.write_text(json.dumps({"epoch": 1, "batch": 0}))
    model = compiled(density)
    fit(model, [keras.callbacks.BackupAndRestore(str(folder)), Stop(-1)])
    same(model, whole)


def test_another_permutation_is_not_taken_for_the_same_flow(tmp_path):
    """With another seed, a flow has other permutations, which are no weights; without one they are always the same."""

    def made(seed):
        model = tff.FlowModel(tff.real_nvp(6, num_layers=3, hidden_units=[8], mixing="permute", seed=seed))
        model.compile(optimizer="adam", jit_compile=False)
        return model

    x = np.random.default_rng(0).normal(size=[64, 6]).astype("f")
    backup = str(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        made(1).fit(x, epochs=3, verbose=0, callbacks=[keras.callbacks.BackupAndRestore(backup), Stop(3)])
    with pytest.raises(ValueError, match=r"permutations or variable orders.*`seed`"):
        made(2).fit(x, epochs=3, verbose=0, callbacks=[keras.callbacks.BackupAndRestore(backup)])
    made(1).fit(x, epochs=3, verbose=0, callbacks=[keras.callbacks.BackupAndRestore(backup)])
    keras.utils.set_random_seed(1)
    first = made(None)
    keras.utils.set_random_seed(2)
    first.save_weights(tmp_path / "x.weights.h5")
    second = made(None)
    second.load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(first.log_prob(x), second.log_prob(x))


def test_the_seed_of_noise_goes_with_the_run(tmp_path):
    levels = np.floor(np.clip(X + 2, 0, 3.9) * 2).astype(np.uint8)

    def fit_levels(seed, callbacks):
        flow = tff.maf(2, num_layers=1, hidden_units=[8], seed=1)
        model = tff.FlowModel(flow, dequantize=8, seed=seed)
        model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
        keras.utils.set_random_seed(7)
        model.fit(levels, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=callbacks)
        return model

    whole = fit_levels(1, [Stop(-1)])
    backup = str(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit_levels(1, [keras.callbacks.BackupAndRestore(backup), Stop(9)])
    same(fit_levels(2, [keras.callbacks.BackupAndRestore(backup), Stop(-1)]), whole)


def test_gradient_accumulation_is_refused():
    model = density()
    with pytest.raises(ValueError, match="`optimizer` accumulates gradients"):
        model.compile(optimizer=keras.optimizers.Adam(gradient_accumulation_steps=2))


def test_our_callback_keeps_several_steps_in_one_call(tmp_path):
    data = tf.data.Dataset.range(10)
    for freq, steps in (("epoch", 10), (3, 1)):
        backup = tff.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=freq)
        assert steps_per_execution(data, [backup], [None, None]) == steps


def test_a_weights_file_holds_progress_in_a_run_only(tmp_path):
    model = compiled(density)
    during, after = str(tmp_path / "during.weights.h5"), str(tmp_path / "after.weights.h5")
    fit(model, [keras.callbacks.ModelCheckpoint(during, save_weights_only=True, save_freq=9)])
    model.save_weights(after)
    for path in (during, after):
        other = compiled(density)
        other.load_weights(path)
        assert fit(other).epoch == list(range(EPOCHS))  # read before `fit`, a file does not say where to begin


def test_steps_are_counted_where_data_end_unannounced():
    """Keras counts one more at the end of such data: what does not wait for a batch runs once more."""
    model = compiled(density)
    data = tf.data.Dataset.from_tensor_slices(X).batch(BATCH).filter(lambda x: True)
    with pytest.warns(UserWarning, match="ran out of data"):
        model.fit(data, epochs=3, verbose=0, callbacks=[Stop(-1)])
    assert model.optimizer.iterations.numpy() == 21


@pytest.mark.parametrize("steps_per_epoch", [None, 3, 7, 10])
def test_every_pass_has_every_row_once_in_an_order_of_its_own(steps_per_epoch):
    order = Order(7, steps_per_epoch)
    per_epoch = steps_per_epoch or 7
    batches = order.batches(
        lambda seed, skip: tf.data.Dataset.from_tensor_slices(
            tf.random.experimental.stateless_shuffle(tf.range(7), seed)
        ).skip(skip)
    )
    assert int(batches.cardinality()) == per_epoch
    epochs = []
    for epoch in range(21):
        order.begin(epoch, 0)
        epochs.append([int(i) for i in batches])
        assert len(epochs[-1]) == per_epoch
        order.begin(epoch, 2)
        assert [int(i) for i in batches] == epochs[-1][2:]
    passes = np.reshape([i for epoch in epochs for i in epoch], [-1, 7])
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert len({tuple(p) for p in passes}) > 0.9 * len(passes)


RUN = """
import json, os, signal, sys
import keras, numpy as np
import tfp_flows as tff
folder, out, kill_at, freq = sys.argv[1:]
keras.utils.set_random_seed(3)
model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[8], normalization="actnorm", seed=1), dequantize=8, seed=2)
model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

x = np.random.default_rng(0).integers(0, 8, [500, 2]).astype("uint8")
freq = freq if freq == "epoch" else int(freq)
model.fit(x, batch_size=16, epochs=12, verbose=0, callbacks=[keras.callbacks.BackupAndRestore(folder, save_freq=freq), Kill()])
np.savez(out, *[w.numpy() for w in [*model.weights, *model.optimizer.variables]])
"""


def run(folder, out, kill_at, freq, after=None):
    """Runs the script, and kills it `after` so many seconds of training, if given. Returns its code."""
    arguments = [sys.executable, "-c", RUN, *map(str, (folder, out, kill_at, freq))]
    if kill_at == -1 and after is None:  # nothing kills it: as well in this process
        with unittest.mock.patch.object(sys, "argv", arguments[1:2] + arguments[3:]):
            exec(compile(RUN, "run", "exec"), {"__name__": "__main__"})
        return 0
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, env=dict(os.environ, PYTHONHASHSEED="0"))
    if after is not None:
        weights = pathlib.Path(folder) / "latest.weights.h5"
        before = weights.stat().st_mtime_ns if weights.exists() else None
        while process.poll() is None and (not weights.exists() or weights.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(after)
        process.kill()
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (0, -9), errors.decode()[-2000:]
    return process.returncode


def check_kills(tmp_path, kills, freq):
    rng = random.Random(1)
    folder = tmp_path / "backup"
    assert run(folder, tmp_path / "whole.npz", -1, freq) == 0
    killed = 0
    for i in kills:
        # At a random step of the 384, or at a random moment, such as in the middle of a file.
        if i % 2:
            killed += run(folder, tmp_path / "none.npz", -1, freq, after=rng.random() * 0.1) == -9
        else:
            killed += run(folder, tmp_path / "none.npz", rng.randrange(1 + 380 * i // len(kills), 384), freq) == -9
    assert killed >= (len(kills) + 1) // 2
    assert run(folder, tmp_path / "again.npz", -1, freq) == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "again.npz") as again:
        assert len(whole.files) > 8
        for key in whole.files:
            np.testing.assert_array_equal(whole[key], again[key])


def test_killed_and_run_again(tmp_path):
    """At a moment; an end at a step is what the tests above have."""
    check_kills(tmp_path, [1], 10)


@pytest.mark.slow
@pytest.mark.parametrize("freq", ["epoch", 7])
def test_killed_twenty_times_and_run_again(tmp_path, freq):
    check_kills(tmp_path, range(20), freq)
