import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from PIL import Image
from stopping import Stop

import tfp_flows as tff
from tfp_flows.training import animation

tfb, tfd = tfp.bijectors, tfp.distributions
X = tff.data.moons().sample(64, seed=1)


def new_model():
    base = tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))
    model = tff.FlowModel(tff.FlowDistribution(base, tfb.Chain([tfb.Shift(tf.Variable([0.0, 0.0]))])))
    model.compile(keras.optimizers.SGD(1e-2), run_eagerly=True)
    return model


def new_movie(path, **options):
    return tff.callbacks.TrainingAnimation(path, X, resolution=8, dpi=25, **options)


def epochs_in(path):
    """Epochs of the frames in a file, which must be as many as the frames."""
    with Image.open(path) as file:
        epochs = json.loads(file.info["comment"])["epochs"]
        assert file.n_frames == len(epochs)
    return epochs


@pytest.fixture
def drawn(monkeypatch):
    """Densities of all frames that are drawn."""
    images = []
    draw = animation.density_image

    def record(ax, xs, ys, p):
        images.append((xs, ys, p))
        return draw(ax, xs, ys, p)

    monkeypatch.setattr(animation, "density_image", record)
    return images


def test_frames_show_the_density_before_training_and_after_each_epoch(tmp_path, drawn):
    model, path = new_model(), tmp_path / "new" / "training.gif"
    first = np.asarray(model.log_prob(X))
    model.fit(X, batch_size=32, epochs=3, verbose=0, callbacks=[new_movie(path)])
    assert epochs_in(path) == [0, 1, 2, 3]
    assert np.abs(model.log_prob(X) - first).max() > 1e-3
    for (xs, ys, p), reference in ((drawn[0], new_model()), (drawn[-1], model)):
        grid = np.stack(np.meshgrid(xs, ys), -1).astype(np.float32)
        np.testing.assert_allclose(p, np.exp(reference.log_prob(grid)), rtol=1e-5)
    assert xs[0] < X[:, 0].min()
    assert ys[-1] > X[:, 1].max()


def test_an_interrupted_run_leaves_its_frames_and_a_resumed_run_adds_to_them(tmp_path):
    path = tmp_path / "training.gif"
    with pytest.raises(KeyboardInterrupt):
        new_model().fit(X, batch_size=32, epochs=9, verbose=0, callbacks=[new_movie(path), Stop(7)])
    assert epochs_in(path) == [0, 1, 2, 3]
    with Image.open(path) as file:
        start = np.asarray(file.convert("RGB"))
    # The weights of epoch 2 were restored: its later frames are not those of this run.
    new_model().fit(X, batch_size=32, initial_epoch=2, epochs=4, verbose=0, callbacks=[new_movie(path)])
    assert epochs_in(path) == [0, 1, 2, 3, 4]
    with Image.open(path) as file:
        np.testing.assert_allclose(np.asarray(file.convert("RGB"), float), start, atol=12)
    new_model().fit(X, batch_size=32, epochs=1, verbose=0, callbacks=[new_movie(path)])
    assert epochs_in(path) == [0, 1]  # a new run replaces the file


def test_several_fits_with_one_callback_continue(tmp_path):
    model, movie = new_model(), new_movie(tmp_path / "training.gif", every=2)
    model.fit(X, batch_size=64, epochs=3, verbose=0, callbacks=[movie])
    assert movie.epochs == [0, 2, 3]  # the last epoch is always shown
    model.fit(X, batch_size=64, epochs=3, verbose=0, callbacks=[movie])
    assert movie.epochs == epochs_in(movie.path) == [0, 2, 3, 4, 6]


def test_long_runs_keep_evenly_spaced_frames(tmp_path):
    movie = new_movie(tmp_path / "training.gif", max_frames=3)
    new_model().fit(X, batch_size=64, epochs=5, verbose=0, callbacks=[movie])
    assert movie.epochs == epochs_in(movie.path) == [0, 2, 4, 5]


def test_a_foreign_file_is_replaced_on_resuming(tmp_path):
    path = tmp_path / "training.gif"
    Image.new("P", (5, 5)).save(path)
    new_model().fit(X, batch_size=64, initial_epoch=2, epochs=3, verbose=0, callbacks=[new_movie(path)])
    assert epochs_in(path) == [2, 3]


def test_the_condition_of_a_conditional_flow(tmp_path, drawn):
    flow = tff.maf(2, num_layers=1, hidden_units=[4], conditional_size=1, preprocess_condition=None, seed=1)
    tff.testing.redraw_weights(flow, seed=2)
    model = tff.FlowModel(flow)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    movie = new_movie(tmp_path / "training.gif", conditional_input=[2.0])
    model.fit(X[:, :1], X, epochs=1, verbose=0, callbacks=[movie])
    xs, ys, p = drawn[0]
    grid = np.stack(np.meshgrid(xs, ys), -1).astype(np.float32)
    np.testing.assert_allclose(p, np.exp(flow.log_prob(grid, conditional_input=[2.0])), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tff.callbacks.TrainingAnimation("a.mp4", X), "`path` must end in .gif, got 'a.mp4'"),
        (lambda: tff.callbacks.TrainingAnimation("a.gif", X[:, :1]), r"`data` must have shape \[N, 2\], got \[64, 1\]"),
        (lambda: tff.callbacks.TrainingAnimation("a.gif", X, fps=0), "`fps` must be positive, got 0"),
        (lambda: tff.callbacks.TrainingAnimation("a.gif", X, every=0), "`every` must be an integer of at least 1"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_model_of_another_size_is_refused_before_training(tmp_path):
    model = tff.FlowModel(tff.maf(3, num_layers=1, hidden_units=[4]))
    model.compile(keras.optimizers.SGD(1e-2))
    with pytest.raises(ValueError, match=r"events of shape \[2\].*got FlowModel with events of shape \(3,\)"):
        model.fit(np.random.default_rng(0).normal(size=[32, 3]), verbose=0, callbacks=[new_movie(tmp_path / "a.gif")])
