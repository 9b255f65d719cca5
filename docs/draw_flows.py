"""Draws the pictures of the pages of flows, `images/flow_NAME.png`: what one layer of each recipe does.

Run `python docs/draw_flows.py` for all, or name some recipes. The maps are the layers of the recipes with redrawn weights.
"""

import io
import pathlib
import sys

import keras
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tfp_flows as tff
from PIL import Image

FOLDER = pathlib.Path(__file__).parent / "images"
REACH = 2.6  # half the width of the latent square
BLUE, ORANGE = "#3b6fb6", "#d9822b"

# Of each recipe of vectors: options of one layer, then seed and scale of its redrawn weights.
LAYERS = {
    "planar_flow": ({"num_layers": 1}, 5, 1.5),
    "radial_flow": ({"num_layers": 1}, 7, 2.0),
    "sylvester_flow": ({"num_layers": 1}, 1, 1.2),
    "nice": ({"num_layers": 2}, 1, 0.35),
    "real_nvp": ({"num_layers": 2}, 1, 0.3),
    "spline_coupling": ({"num_layers": 2, "num_bins": 8, "bound": 3.0}, 1, 0.22),
    "maf": ({"num_layers": 1}, 3, 0.22),
    "iaf": ({"num_layers": 1}, 6, 0.2),
    "made": ({"num_components": 4}, 1, 0.3),
    "spline_autoregressive": ({"num_layers": 1, "bound": 3.0}, 4, 0.2),
    "neural_autoregressive": ({"num_layers": 1}, 7, 0.3),
}


def first_layer(name):
    options, seed, scale = LAYERS[name]
    flow = getattr(tff, name)(2, seed=1, **options)
    layer = (
        next(iter(flow.bijector.bijectors[::-1]))
        if hasattr(flow.bijector, "bijectors")
        else flow.bijector
    )
    tff.testing.redraw_weights(layer, seed=seed, scale=scale)
    return layer


def grid_lines(count=15, points=200):
    along = np.linspace(-REACH, REACH, points)
    return [
        np.stack((along, np.full(points, at))[::turn], axis=-1).astype(np.float32)
        for turn in (1, -1)
        for at in np.linspace(-REACH, REACH, count)
    ]


def draw_plane(ax, move, title, z, density=None, limits=None):
    for i, line in enumerate(grid_lines()):
        ax.plot(*move(line).T, color=BLUE if i < 15 else ORANGE, lw=0.6, alpha=0.6)
    x = move(z)
    ax.scatter(*x.T, s=2, color="black", alpha=0.5, linewidths=0)
    ax.set_title(title, fontsize=10)
    ax.set_aspect("equal", adjustable="datalim")
    ax.tick_params(labelsize=8)


def forward(layer):
    return lambda z: layer.forward(tf.constant(z, tf.float32)).numpy()


def save(figure, name):
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, facecolor="white")
    plt.close(figure)
    path = FOLDER / f"flow_{name}.png"
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)
    print(path.name, path.stat().st_size // 1000, "kB")


def draw_vector_flow(name):
    layer = first_layer(name)
    z = np.random.default_rng(0).normal(size=[600, 2]).astype(np.float32)
    amortized = name in ("planar_flow", "radial_flow", "sylvester_flow")
    figure, axes = plt.subplots(
        1, 2 if amortized else 3, figsize=(6.4, 3.1) if amortized else (9.2, 3.1)
    )
    draw_plane(axes[0], lambda x: x, "latent values z", z)
    draw_plane(axes[1], forward(layer), "data x, after one layer", z)
    if not amortized:
        draw_slices(axes[2], layer)
    save(figure, name)


def draw_slices(ax, layer):
    """Draws the map of the second coordinate for three values of the first one."""
    z2 = np.linspace(-REACH, REACH, 300)
    for z1, color in zip((-1.0, 0.0, 1.0), ("#1b4f8a", "#5b9bd5", ORANGE), strict=True):
        z = np.stack([np.full_like(z2, z1), z2], axis=-1).astype(np.float32)
        ax.plot(z2, forward(layer)(z)[:, 1], color=color, label=f"$z_1 = {z1:g}$")
    ax.set_xlabel("$z_2$", fontsize=9)
    ax.set_title("$x_2$ as a function of $z_2$", fontsize=10)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=8, frameon=False)


def draw_maf_mog():
    flow = tff.maf_mog(2, num_layers=1, num_components=4, seed=1)
    affine, mixture = flow.bijector.bijectors
    tff.testing.redraw_weights(affine, seed=4, scale=0.2)
    tff.testing.redraw_weights(mixture, seed=1, scale=0.3)
    z = np.random.default_rng(0).normal(size=[600, 2]).astype(np.float32)
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.1))
    draw_plane(axes[0], lambda x: x, "latent values z", z)
    draw_plane(axes[1], forward(mixture), "after the mixture layer", z)
    draw_plane(axes[2], forward(flow.bijector), "data x, after the affine layer", z)
    save(figure, "maf_mog")


def scatter(ax, x, title, color):
    ax.scatter(*np.asarray(x).T, s=2, c=color, cmap="twilight", linewidths=0)
    ax.set_title(title, fontsize=10)
    ax.set_aspect("equal", adjustable="datalim")
    ax.tick_params(labelsize=8)


def draw_rbig():
    x = tff.data.moons().sample(1500, seed=0)
    flow = tff.rbig(2, max_layers=3, seed=1).fit(x, verbose=0)
    parts = [
        part for layer in flow.bijector.bijectors for part in getattr(layer, "bijectors", [layer])
    ]
    color = np.arctan2(*(x - x.mean(axis=0)).T)
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 2.7))
    y = tf.constant(x, tf.float32)
    titles = iter(("margins made normal", "rotated", "margins made normal"))
    scatter(axes[0], y, "data", color)
    shown = 1
    for part in parts:
        moved = part.inverse(y)
        if shown < 4 and type(part).__name__ in ("MarginalGaussianization", "Rotation"):
            scatter(axes[shown], moved, next(titles), color)
            shown += 1
        y = moved
    save(figure, "rbig")


def draw_gaussianization_flow():
    x = tff.data.pinwheel().sample(1500, seed=0)
    flow = tff.gaussianization_flow(2, num_layers=2, seed=1)
    tff.FlowModel(flow).adapt(x)
    color = np.arctan2(*(x - x.mean(axis=0)).T)
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 2.7))
    y = tf.constant(x, tf.float32)
    shown = [y]
    for part in flow.bijector.bijectors:
        y = part.inverse(y)
        if type(part).__name__ != "ActNorm":
            shown.append(y)
    for ax, y, title in zip(
        axes, shown, ("data", "mixture CDFs", "rotated", "mixture CDFs"), strict=True
    ):
        scatter(ax, y, title, color)
    save(figure, "gaussianization_flow")


def draw_continuous_flow():
    flow = tff.continuous_flow(2, hidden_units=[32], seed=1)
    layer = flow.bijector.bijectors[0] if hasattr(flow.bijector, "bijectors") else flow.bijector
    tff.testing.redraw_weights(layer, seed=4, scale=0.7)
    z = np.random.default_rng(0).normal(size=[600, 2]).astype(np.float32)
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.1))
    draw_plane(axes[0], lambda x: x, "latent values z, t = 0", z)
    # Paths by small steps of Euler's method, for the picture only.
    path, steps = [tf.constant(z[:60])], 200
    for i in range(steps):
        path.append(path[-1] + layer.velocity(tf.constant(i / steps), path[-1]) / steps)
    path = np.stack(path)
    axes[1].plot(*np.moveaxis(path, -1, 0), color=BLUE, lw=0.7, alpha=0.8)
    axes[1].scatter(*path[-1].T, s=6, color=ORANGE, zorder=3)
    axes[1].set_title("paths of points", fontsize=10)
    axes[1].set_aspect("equal", adjustable="datalim")
    axes[1].tick_params(labelsize=8)
    draw_plane(axes[2], forward(layer), "data x, t = 1", z)
    save(figure, "continuous_flow")


def trained_by(kind, x, scale):
    options = {"activation": "silu", "preprocess": scale, "seed": 1}
    flow = tff.continuous_flow(2, hidden_units=[64, 64], **options)
    keras.utils.set_random_seed(1)
    if kind == "likelihood":
        model, steps = tff.FlowModel(flow), 200
    else:
        model, steps = tff.FlowMatchingModel(flow, pairing=kind, seed=1), 2000
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0))
    model.fit(x, batch_size=250, epochs=steps * 250 // len(x), verbose=0)
    return next(b for b in flow.bijector.bijectors if isinstance(b, tff.ContinuousFlow))


def draw_matching_paths():
    x = tff.data.moons().sample(5000, seed=0)
    scale = tff.standardize(x)
    start = tf.random.stateless_normal([120, 2], seed=[1, 2])
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.3), sharex=True, sharey=True)
    titles = {
        "likelihood": "maximum likelihood",
        "independent": "flow matching",
        "optimal_transport": "with optimal transport",
    }
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        layer, path, steps = trained_by(kind, x, scale), [start], 100
        for i in range(steps):  # Euler's method is good enough for the picture.
            path.append(path[-1] + layer.velocity(i / steps, path[-1]) / steps)
        path = np.stack(path)
        ax.plot(path[..., 0], path[..., 1], color=BLUE, lw=0.5, alpha=0.8)
        ax.scatter(*path[0].T, s=4, color="black")
        ax.scatter(*path[-1].T, s=5, color=ORANGE, zorder=3)
        ax.set_title(title, fontsize=10)
        ax.set_aspect("equal")
        ax.tick_params(labelsize=8)
    save(figure, "matching_paths")


def show_image(ax, image, title):
    image = np.squeeze(np.asarray(image))
    ax.imshow(
        image, cmap="gray" if image.ndim == 2 else None, vmin=-2, vmax=2, interpolation="nearest"
    )
    ax.set_title(title, fontsize=10)
    ax.set_xticks([])
    ax.set_yticks([])


def pattern(size, channels):
    rows, columns = np.mgrid[:size, :size] / (size - 1) * 2 - 1
    waves = [np.cos(3 * np.hypot(rows - 0.3 * c, columns + 0.3 * c)) for c in range(channels)]
    return np.stack(waves, axis=-1)[np.newaxis].astype(np.float32)


def draw_image_real_nvp():
    z = pattern(16, 1)
    couplings = []
    for mask, shape in (("checkerboard", (16, 16, 1)), ("channel", (8, 8, 4))):
        network = tff.conv_resnet_template(16, 1, image_shape=shape, seed=1)
        coupling = tff.AffineCouplingLayer(network, mask, 0)
        coupling.forward(tf.zeros([1, *shape]))
        tff.testing.redraw_weights(coupling, seed=1, scale=0.5)
        couplings.append(coupling)
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 2.6))
    show_image(axes[0], z, "input")
    show_image(
        axes[1],
        4.0 * np.asarray(tff.checkerboard_binary_mask((16, 16, 1), 0)) - 2.0,
        "mask: white pixels stay",
    )
    show_image(axes[2], couplings[0].forward(z), "after a checkerboard layer")
    squeeze = tff.Squeeze()
    show_image(
        axes[3], squeeze.inverse(couplings[1].forward(squeeze.forward(z))), "after a channel layer"
    )
    save(figure, "image_real_nvp")


def draw_image_continuous_flow(steps=1500):
    """Draws scikit-learn's digits, and samples of a matched flow for each digit."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    noise = np.random.default_rng(0).uniform(size=digits.images.shape)
    x = ((digits.images + noise) / 17 * 4 - 1.5)[..., np.newaxis].astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[digits.target]
    keras.utils.set_random_seed(1)
    options = {"filters": 16, "alpha": None, "conditional_size": 10, "seed": 1}
    flow = tff.image_continuous_flow(
        (8, 8, 1), solver="midpoint", num_steps=10, preprocess_condition=None, **options
    )
    model = tff.FlowMatchingModel(flow, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate, use_ema=True))
    rows = (
        tf.data.Dataset.from_tensor_slices((labels, x)).shuffle(len(x), seed=1).repeat().batch(128)
    )
    model.fit(rows, epochs=1, steps_per_epoch=steps, verbose=0)
    samples = model.sample([3, 10], conditional_input=np.eye(10, dtype=np.float32), seed=1)
    first = [x[digits.target == digit][0] for digit in range(10)]
    figure, axes = plt.subplots(4, 10, figsize=(6.4, 2.8))
    for row, images in zip(axes, [first, *samples], strict=True):
        for ax, image in zip(row, images, strict=True):
            ax.imshow(np.squeeze(image), cmap="gray", vmin=-1.5, vmax=2.5)
            ax.set_axis_off()
    save(figure, "image_continuous_flow")


def as_color(x):
    return np.clip(0.5 + 0.25 * np.asarray(x), 0.0, 1.0)


def draw_glow():
    z = tf.constant(pattern(16, 3))
    normalize = tff.ActNorm(3)
    mix = tff.LULinear(3, seed=3)
    network = tff.glow_template(16, image_shape=(16, 16, 3), seed=1)
    coupling = tff.AffineCouplingLayer(network, "channel", 0)
    coupling.forward(tf.zeros([1, 16, 16, 3]))
    for layer, scale in ((normalize, 0.5), (mix, 0.5), (coupling, 0.3)):
        tff.testing.redraw_weights(layer, seed=2, scale=scale)
    figure, axes = plt.subplots(1, 4, figsize=(9.2, 2.6))
    titles = (
        "input, three channels",
        "after the coupling",
        "after the 1x1 convolution",
        "after ActNorm",
    )
    images = [z]
    for layer in (coupling, mix, normalize):
        images.append(layer.forward(images[-1]))
    for ax, image, title in zip(axes, images, titles, strict=True):
        show_image(ax, as_color(image), title)
    save(figure, "glow")


SPECIAL = {
    "maf_mog": draw_maf_mog,
    "rbig": draw_rbig,
    "gaussianization_flow": draw_gaussianization_flow,
    "continuous_flow": draw_continuous_flow,
    "matching_paths": draw_matching_paths,
    "image_continuous_flow": draw_image_continuous_flow,
    "image_real_nvp": draw_image_real_nvp,
    "glow": draw_glow,
}

if __name__ == "__main__":
    matplotlib.use("Agg")
    for name in sys.argv[1:] or [*LAYERS, *SPECIAL]:
        SPECIAL.get(name, lambda name=name: draw_vector_flow(name))()
