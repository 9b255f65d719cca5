import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from matplotlib.animation import AbstractMovieWriter
from matplotlib.figure import Figure
from PIL import Image

import tfp_flows as tff
from tfp_flows.evaluation.plots import gifs
from tfp_flows.evaluation.plots.animations import _STILL

tfb, tfd = tfp.bijectors, tfp.distributions
X = tff.data.moons().sample(60, seed=1)
SHIFTS = tfd.TransformedDistribution(
    tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2)), tfb.Chain([tfb.Shift([0.0, 8.0]), tfb.Shift([4.0, 0.0])])
)


class Recorder(AbstractMovieWriter):
    """Records where the particles are in each frame, and the titles."""

    def setup(self, fig, outfile, dpi=None):
        super().setup(fig, outfile, dpi)
        self.particles, self.titles = [], []

    def grab_frame(self, **kwargs):
        ax = self.fig.axes[0]
        self.particles.append(np.array(ax.collections[0].get_offsets()))
        self.titles.append(ax.get_title())

    def finish(self):
        pass


def test_particles_start_in_the_base_and_end_as_samples_of_the_model(tmp_path):
    flow = tff.maf(2, num_layers=2, hidden_units=[8], conditional_size=1, seed=1)
    tff.testing.redraw_weights(flow, seed=2)
    movie = tff.plots.animation(flow, num_particles=20, frames=3, seed=5, conditional_input=[0.7])
    recorder = Recorder()
    movie.save(tmp_path / "none", writer=recorder)
    ends = tff.FlowModel(flow).sample(20, seed=5, conditional_input=[0.7])
    np.testing.assert_allclose(recorder.particles[-1], ends, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(recorder.particles[0], flow.distribution.sample(20, seed=tf.constant([5, 0])), rtol=1e-6)
    assert recorder.titles == ["base"] * (_STILL + 1) + ["layer 1 of 2", "layer 2 of 2"]


def test_within_a_layer_particles_move_on_straight_lines(tmp_path):
    movie = tff.plots.animation(SHIFTS, num_particles=10, frames=5)
    recorder = Recorder()
    movie.save(tmp_path / "none", writer=recorder)
    moves = np.array(recorder.particles[_STILL:]) - recorder.particles[0]
    np.testing.assert_allclose(moves[:, 0], [[0, 0], [2, 0], [4, 0], [4, 4], [4, 8]], atol=1e-5)
    np.testing.assert_allclose(moves, np.broadcast_to(moves[:, :1], moves.shape), atol=1e-5)


def test_gif_and_html_have_all_frames(tmp_path):
    figure = Figure(figsize=(2, 1))
    path = tmp_path / "new" / "flow.gif"
    tff.plots.animation(SHIFTS, path, data=X, num_particles=30, frames=4, fps=10, dpi=40, figure=figure)
    with Image.open(path) as file:
        durations = []
        for i in range(file.n_frames):
            file.seek(i)
            durations.append(file.info["duration"])
        assert file.info["loop"] == 0
        assert file.size == (80, 40)
    assert sum(durations) == 100 * (_STILL + 3) + 1500  # equal frames are merged, the last one stays
    np.testing.assert_allclose(figure.axes[1].collections[0].get_offsets(), X[:30])
    assert len(figure.axes[0].collections[0].get_offsets()) == 30
    movie = tff.plots.animation(SHIFTS, tmp_path / "flow.html", num_particles=5, frames=3, dpi=40)
    text = (tmp_path / "flow.html").read_text()
    assert text.count('"data:image/png;base64') == _STILL + 3
    assert "<script" in movie._repr_html_()  # what a notebook shows


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "flow.gif"
    tff.plots.animation(SHIFTS, path, num_particles=5, frames=2, dpi=30)
    before = path.read_bytes()

    def fails(part):
        with open(part, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gifs.write_whole(path, fails)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tff.plots.animation(SHIFTS, "flow.mp4"), r"`path` must end in .gif or .html, got 'flow.mp4'"),
        (lambda: tff.plots.animation(tff.maf(3, num_layers=1)), r"`flow` must have events of shape \[2\]"),
        (lambda: tff.plots.animation(SHIFTS, data=X[0]), r"`data` must have shape \[N, 2\], got \[2\]"),
        (lambda: tff.plots.animation(SHIFTS, frames=1), "`frames` must be an integer of at least 2"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
