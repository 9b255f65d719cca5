"""Arrays of images for the commands, as in `tfp-flows fit images.npy --flow image_real_nvp`."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from tfp_flows import data
from tfp_flows.cli.output import UsageError
from tfp_flows.cli.recipes import recipe_names
from tfp_flows.cli.tables import split

IMAGE_FLOWS = recipe_names("image_shape")
STEPS = 3200  # approximate number of training steps without --epochs


def read_images(path: str) -> np.ndarray:
    """Return integer images `[N, H, W, C]` from a `.npy` file of shape `[N, H, W]` or `[N, H, W, C]`."""
    if pathlib.Path(path).suffix.lower() != ".npy":
        raise UsageError(f"{path}: images are read from a .npy file of shape [N, H, W] or [N, H, W, C].")
    try:
        images = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UsageError(f"{path}: cannot be read ({str(error).splitlines()[0]}).") from error
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UsageError(f"{path}: expected shape [N, H, W] or [N, H, W, 1 or 3], got {list(images.shape)}.")
    if not np.issubdtype(images.dtype, np.integer):
        raise UsageError(f"{path}: expected integers, such as bytes from 0 to 255, got dtype {images.dtype}.")
    if len(images) == 0:
        raise UsageError(f"{path}: holds no image.")
    if images.min() < 0 or images.max() > 65_535:
        raise UsageError(f"{path}: expected levels from 0 up to at most 65535, got {images.min()} to {images.max()}.")
    return images


class ImageTask:
    """The steps of `tfp-flows fit` for an array of images, in the order of `cli.main.fit`."""

    def __init__(self, args):
        self.args, images = args, read_images(args.source)
        if (count := len(images)) < 10:
            raise UsageError(f"{args.source}: {count} images are too few to hold some out; at least 10 are needed.")
        if images.max() == images.min():
            raise UsageError(f"{args.source}: every pixel is {images.max()}: there is nothing to learn.")
        self.name, self.shape = pathlib.Path(args.source).stem, images.shape[1:]
        # The images are bytes, unless the largest level is small, or too large for a byte.
        self.levels = 256 if 64 < images.max() < 256 else int(images.max()) + 1
        self.train, self.validation, self.test = split(images, args.seed)

    def fit(self) -> tuple[Any, dict[str, list[float]]]:
        import keras
        import tensorflow as tf

        from tfp_flows.recipes.recipe import RECIPES
        from tfp_flows.training import FlowModel
        from tfp_flows.training.batch_order import without_autotuning

        args, train, validation = self.args, self.train, self.validation
        try:
            flow = RECIPES[args.flow](self.shape, seed=args.seed)
        except ValueError as error:
            raise UsageError(f"{args.source}: {error}") from error
        model = FlowModel(flow, dequantize=self.levels, seed=args.seed, name="flow")
        batch = min(args.batch_size, max(1, len(train) // 4))
        steps = len(train) // batch
        epochs = args.epochs or max(5, min(200, -(-STEPS // steps)))
        warmup = min(200, epochs * steps // 10)
        rate = keras.optimizers.schedules.CosineDecay(
            1e-5, max(1, epochs * steps - warmup), warmup_target=args.learning_rate or 1e-3, warmup_steps=warmup
        )
        model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
        shape = " x ".join(map(str, self.shape))
        what = f"{args.flow} with {model.count_params()} weights, {epochs} epochs"
        sizes = f"{len(train)} images {shape} of {self.levels} levels to train, {len(validation)} to validate"
        print(f"{sizes}, {len(self.test)} held out; {what}", flush=True)
        rows = tf.data.Dataset.from_tensor_slices(train)
        rows = rows.shuffle(len(train), seed=args.seed).batch(batch, drop_remainder=True)
        options = {"validation_data": validation, "validation_batch_size": min(len(validation), 500)}
        rows = without_autotuning(rows.prefetch(2))
        return model, model.fit(rows, epochs=epochs, verbose=args.verbose, **options).history

    def report(self, model: Any) -> dict[str, Any]:
        bits = bits_per_dim(model, self.test, self.shape)
        if not np.all(np.isfinite(bits)):
            raise FloatingPointError("a held-out image has a log-density that is not finite.")
        return {
            "images": list(self.shape),
            "columns": [],
            "levels": self.levels,
            "bits_per_dim": float(np.mean(bits)),
            "bits_per_dim_standard_error": float(np.std(bits) / np.sqrt(len(bits))),
            "uniform_bits_per_dim": float(np.log2(self.levels)),
        }

    def print_report(self, report: dict[str, Any]) -> None:
        bits = f"{report['bits_per_dim']:.3f} bits per dimension"
        error = f"(standard error {report['bits_per_dim_standard_error']:.3f})"
        uniform = f"a uniform guess needs {report['uniform_bits_per_dim']:.3f}"
        print(f"\nheld-out images, {len(self.test)}: {bits} {error}; {uniform}", flush=True)

    def write_held_out(self, folder: pathlib.Path) -> None:
        np.save(folder / "held_out.npy", self.test)

    @staticmethod
    def figure(model, report: dict, held_out: np.ndarray):
        """Return a plot of held-out images, samples, and the history."""
        from matplotlib.figure import Figure

        from tfp_flows.evaluation import plots

        figure = Figure(figsize=(13, 4.4), layout="constrained")
        parts = figure.subfigures(1, 3)
        plots.image_grid(held_out[:36], figure=parts[0])
        parts[0].suptitle("held-out images")
        plots.image_grid(model.sample(36, seed=report["seed"]).numpy(), figure=parts[1])
        parts[1].suptitle(f"samples: {report['bits_per_dim']:.2f} bits per dimension")
        ax = parts[2].subplots()
        for key, label in (("bits_per_dim", "training"), ("val_bits_per_dim", "validation")):
            ax.plot(np.arange(1, 1 + len(report["history"][key])), report["history"][key], label=label)
        ax.set(xlabel="epoch", ylabel="bits per dimension")
        ax.legend()
        return figure


def bits_per_dim(model: Any, images: np.ndarray, shape) -> np.ndarray:
    """Return the bits per dimension of each image."""
    log_prob = np.asarray(model.predict(images, batch_size=min(len(images), 500), verbose=0), np.float64)
    return -log_prob / (np.log(2.0) * np.prod(shape))


def score_images(args, model, report: dict) -> int:
    """Print the bits per dimension of a file of images under a fitted flow. Return the exit code."""
    images = read_images(args.file)
    if list(images.shape[1:]) != report["images"] or images.max() >= report["levels"]:
        given = f"images of shape {list(images.shape[1:])} up to {images.max()}"
        raise UsageError(f"{args.file}: {given}, the flow has {report['images']} and {report['levels']} levels.")
    bits = bits_per_dim(model, images, report["images"])
    error = np.std(bits) / np.sqrt(len(bits))
    print(f"{len(images)} images: {np.mean(bits):.4f} bits per dimension (standard error {error:.4f})")
    print(f"least likely: image {int(np.argmax(bits)) + 1}, {np.max(bits):.4f} bits per dimension")
    if args.out:
        data.write_csv(args.out, bits[:, None], ["bits_per_dim"])
        print(f"wrote the bits per dimension of each image to {args.out}")
    return 0
