"""Training by `tf.distribute` strategies is the training of one process, on two devices and in several processes."""

import functools
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows as tff

tfb, tfd = tfp.bijectors, tfp.distributions

# What a user would write, but for the cases and `stop`.
RUN = """
import json, os, signal, sys
names, kind, backup, out, stop = sys.argv[1:]
import tensorflow as tf
if kind == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
else:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras, numpy as np
import tfp_flows as tff
sys.path[:0] = ["tests", "tests/training"]
import test_strategies as cases

class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == int(stop):
            os.kill(os.getpid(), signal.SIGKILL)

worker = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
callbacks = ([tff.callbacks.BackupAndRestore(backup)] if backup else []) + [Stop()] * (int(stop) > 0)
for name in names.split(","):
    keras.utils.set_random_seed(1 + worker)
    with strategy.scope():
        model = cases.compiled(name)
    history = cases.fit(name, model, callbacks)
    weights = [w.numpy() for w in model.weights]
    np.savez(out.replace("NAME", name), *weights, history=json.dumps(history))
if "batch_norm" in names and kind == "mirrored":
    cases.check_nan_stops(strategy)
"""

X = tff.data.moons().sample(250, seed=0)
LABELS = np.eye(2, dtype=np.float32)[(X[:, 0] > 0).astype(int)]
DATA = {
    "coupling": (X,),
    "batch_norm": (X,),
    "conditional": (LABELS, X),
    "variational": (),
    "autoencoder": (X,),
    "stream": (),
}


def compiled(case):
    coupling = {"num_layers": 2, "hidden_units": [16], "seed": 1}
    if case in ("coupling", "stream"):
        model = tff.FlowModel(tff.real_nvp(2, normalization="actnorm", **coupling))
    elif case == "batch_norm":
        model = tff.FlowModel(tff.maf(2, num_layers=1, hidden_units=[16], normalization="batch_norm", seed=1))
    elif case == "conditional":
        model = tff.FlowModel(tff.real_nvp(2, conditional_size=2, **coupling))
    elif case == "variational":
        target = tfd.MultivariateNormalDiag(tf.ones(2), tf.ones(2))
        model = tff.VariationalFlow(tff.real_nvp(2, **coupling), target.log_prob, sample_size=64, seed=1)
    else:
        dense = keras.layers.Dense
        encoder = keras.Sequential([keras.Input((2,)), dense(8, "tanh"), dense(4)])
        decoder = keras.Sequential([keras.Input((2,)), dense(8, "tanh"), dense(2)])
        model = tff.FlowVAE(encoder, decoder, latent_size=2, likelihood=tfd.MultivariateNormalDiag, seed=1)
    # Adam would make more of what rounding differs by.
    rows_differ = case == "stream"
    model.compile(optimizer=keras.optimizers.Adam(3e-3) if rows_differ else keras.optimizers.SGD(0.05))
    return model


def fit(case, model, callbacks=()):
    options = {"epochs": 4, "verbose": 0, "callbacks": list(callbacks)}
    if case == "variational":
        return model.fit(steps_per_epoch=10, **options).history
    if case == "stream":
        rows = tff.streams.npy(os.environ["ROWS"], block_rows=25)
        model.adapt(rows)
        history = model.fit(rows, batch_size=50, validation_data=rows, **options).history
        assert model.optimizer.iterations.numpy() == 20  # what Keras takes for the length of an epoch
        return history
    # 83 + 83 + 83 + 1 rows: parts differ in size, and of the last batch the second replica gets nothing.
    options["validation_data"] = tuple(a[:51] for a in DATA[case]) if case == "conditional" else X[:51]
    history = model.fit(*DATA[case], batch_size=83, **options).history
    if case != "autoencoder":
        history["evaluated"] = model.evaluate(*DATA[case], verbose=0)
    return history


def check_nan_stops(strategy):
    """Replicas stop at a loss that is NaN as one does: at its step, with finite weights."""
    with strategy.scope():
        model = tff.FlowModel(tff.planar_flow(2, num_layers=1, seed=1))
        model.compile(optimizer=keras.optimizers.SGD(0.05), jit_compile=False)
    rows = X[:64].copy()
    rows[63, 1] = np.nan
    with pytest.raises(FloatingPointError, match="step 2"):
        model.fit(tf.data.Dataset.from_tensor_slices(rows).batch(32), verbose=0)
    assert all(np.all(np.isfinite(w)) for w in model.get_weights())


@functools.cache
def alone(case):
    """History and weights of the same in this process."""
    keras.utils.set_random_seed(1)
    model = compiled(case)
    history = fit(case, model)
    return history, [w.numpy() for w in model.weights]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def start(tmp_path, names, number, backup="", stops=()):
    """Runs cases on two devices (`number` 0) or in so many processes; returns codes, errors, and results of each case."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(number)]
    processes = []
    np.save(tmp_path / "rows.npy", X)
    for index in range(max(number, 1)):
        env = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", ROWS=str(tmp_path / "rows.npy"))
        if number:
            task = {"type": "worker", "index": index}
            env["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        kind, stop = "workers" if number else "mirrored", stops[index] if stops else 0
        out = tmp_path / f"NAME{index}.npz"
        arguments = [sys.executable, "-c", RUN, ",".join(names), kind, str(backup), str(out), str(stop)]
        processes.append(subprocess.Popen(arguments, env=env, stderr=subprocess.PIPE, text=True))
    errors = []
    try:
        for process in processes:
            errors.append(process.communicate(timeout=240)[1])
    finally:
        for process in processes:
            process.kill()
    files = {name: [tmp_path / f"{name}{i}.npz" for i in range(len(processes))] for name in names}
    results = {name: [np.load(f) for f in found if f.exists()] for name, found in files.items()}
    return [p.returncode for p in processes], errors, results


def check_alike(results):
    """Every process has the same weights and was told the same."""
    for result in results:
        assert str(result["history"]) == str(results[0]["history"])
        for key in result.files:
            np.testing.assert_array_equal(result[key], results[0][key])


def check_like_alone(case, told, found, epochs_before=0):
    history, weights = alone(case)
    assert set(told) == set(history)
    for key, values in history.items():
        values = values[epochs_before:] if isinstance(values, list) else values
        np.testing.assert_allclose(told[key], values, atol=1e-4, rtol=1e-4, err_msg=key)
    for a, b in zip(found, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-4, rtol=5e-4)


def check_results(case, results, epochs_before=0):
    check_alike(results)
    told, found = json.loads(str(results[0]["history"])), [results[0][k] for k in results[0].files if k != "history"]
    check_like_alone(case, told, found, epochs_before)


@pytest.mark.parametrize(
    ("number", "names"),
    [
        (0, ("batch_norm", "variational", "stream")),
        pytest.param(0, ("coupling", "conditional", "autoencoder"), marks=pytest.mark.slow),
        pytest.param(2, ("batch_norm", "variational", "stream"), marks=pytest.mark.slow),
        pytest.param(2, ("coupling", "conditional", "autoencoder"), marks=pytest.mark.slow),
        pytest.param(3, ("batch_norm",), marks=pytest.mark.slow),
    ],
)
def test_devices_and_processes_train_like_one(tmp_path, number, names):
    codes, errors, results = start(tmp_path, names, number)
    assert codes == [0] * max(number, 1), errors[0][-3000:]
    for name in names:
        assert len(results[name]) == len(codes)
        if name in (
            "variational",
            "autoencoder",
            "stream",
        ):  # replicas draw noise of their own, workers read rows of their own
            check_alike(results[name])
            losses = json.loads(str(results[name][0]["history"]))["loss"]
            assert losses[-1] < losses[0] - 0.05
        else:
            check_results(name, results[name])


def lose_a_worker(tmp_path, backup):
    codes, errors, _ = start(tmp_path, ["coupling"], 2, backup, stops=(0, 10))
    assert codes == [1, -9]
    assert "RuntimeError: Another worker died" in errors[0]


def test_a_worker_that_dies_ends_the_others_and_a_backup_goes_on(tmp_path):
    """One process resumes the backup of two, and ends like one that did it all: so the two trained like one."""
    backup = tmp_path / "backup"
    lose_a_worker(tmp_path, backup)
    model = compiled("coupling")
    history = fit("coupling", model, [tff.callbacks.BackupAndRestore(str(backup))])
    assert not backup.exists()
    check_like_alone("coupling", history, [w.numpy() for w in model.weights], epochs_before=2)


@pytest.mark.slow
def test_a_backup_goes_on_in_two_processes(tmp_path):
    backup = tmp_path / "backup"
    lose_a_worker(tmp_path, backup)
    codes, errors, results = start(tmp_path, ["coupling"], 2, backup)
    assert codes == [0, 0], errors[0][-3000:]
    assert not backup.exists()
    check_results("coupling", results["coupling"], epochs_before=2)
