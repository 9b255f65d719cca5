"""`tfp-flows fit images.npy --flow image_real_nvp`: the commands for arrays of images."""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

import numpy as np

from tfp_flows import data
from tfp_flows.cli.output import UsageError, load_tensorflow, write_folder
from tfp_flows.cli.recipes import recipe_names

IMAGE_FLOWS = recipe_names("image_shape")


def read_images(path: str) -> np.ndarray:
    """Read integer images `[N, H, W, C]` from a `.npy` file of shape `[N, H, W]` or `[N, H, W, C]`."""
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


def fit_images(args, out: pathlib.Path, held_out_part: float, steps_wanted: int) -> int:
    """Fit a flow to a file of images, report bits per dimension on held-out images, and write a folder."""
    images = read_images(args.source)
    if len(images) < 10:
        raise UsageError(f"{args.source}: {len(images)} images are too few to hold some out; at least 10 are needed.")
    if images.max() == images.min():
        raise UsageError(f"{args.source}: every pixel is {images.max()}: there is nothing to learn.")
    # 256 levels for bytes, unless the file uses few of them: then as many as it uses.
    levels = 256 if 64 < images.max() < 256 else int(images.max()) + 1
    order = np.random.default_rng(args.seed).permutation(len(images))
    held = max(1, round(held_out_part * len(images)))
    train, validation, test = images[order[2 * held :]], images[order[held : 2 * held]], images[order[:held]]

    load_tensorflow()
    import keras
    import tensorflow as tf

    from tfp_flows.recipes.recipe import RECIPES
    from tfp_flows.training import FlowModel
    from tfp_flows.training.order import without_autotuning

    keras.utils.set_random_seed(args.seed)
    try:
        flow = RECIPES[args.flow](images.shape[1:], seed=args.seed)
    except ValueError as error:
        raise UsageError(f"{args.source}: {error}") from error
    model = FlowModel(flow, dequantize=levels, seed=args.seed, name="flow")
    batch = min(args.batch_size, max(1, len(train) // 4))
    steps = len(train) // batch
    epochs = args.epochs or max(5, min(200, -(-steps_wanted // steps)))
    warmup = min(200, epochs * steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, max(1, epochs * steps - warmup), warmup_target=args.learning_rate or 1e-3, warmup_steps=warmup
    )
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    shape = " x ".join(map(str, images.shape[1:]))
    print(
        f"{len(train)} images {shape} of {levels} levels to train, {len(validation)} to validate, {len(test)} held out; "
        f"{args.flow} with {model.count_params()} weights, {epochs} epochs",
        flush=True,
    )
    rows = tf.data.Dataset.from_tensor_slices(train)
    rows = rows.shuffle(len(train), seed=args.seed).batch(batch, drop_remainder=True)
    rows = without_autotuning(rows.prefetch(2))
    history = model.fit(
        rows,
        epochs=epochs,
        validation_data=validation,
        validation_batch_size=min(len(validation), 500),
        verbose=args.verbose,
    )
    scores = model.predict(test, batch_size=min(len(test), 500), verbose=0)
    bits = -np.asarray(scores, np.float64) / (np.log(2.0) * np.prod(images.shape[1:]))
    if not np.all(np.isfinite(bits)):
        raise FloatingPointError("a held-out image has a log-density that is not finite.")
    report: dict[str, Any] = {
        "source": pathlib.Path(args.source).stem,
        "images": list(images.shape[1:]),
        "columns": [],
        "levels": levels,
        "flow": args.flow,
        "seed": args.seed,
        "epochs": len(history.history["loss"]),
        "held_out_rows": len(test),
        "bits_per_dim": float(np.mean(bits)),
        "bits_per_dim_standard_error": float(np.std(bits) / np.sqrt(len(bits))),
        "uniform_bits_per_dim": float(np.log2(levels)),
        "history": {k: [float(v) for v in vs] for k, vs in history.history.items()},
    }
    print(
        f"\nheld-out images, {len(test)}: {report['bits_per_dim']:.3f} bits per dimension (standard error "
        f"{report['bits_per_dim_standard_error']:.3f}); a uniform guess needs {np.log2(levels):.3f}",
        flush=True,
    )
    write_folder(
        out,
        model,
        report,
        lambda folder: np.save(folder / "held_out.npy", test),
        lambda path: draw_images(path, model, report, test),
        args.overwrite,
    )
    print(f"wrote {out}{os.sep}")
    return 0


def score_images(args, model, report: dict) -> int:
    """Print the bits per dimension of a file of images under a fitted flow."""
    images = read_images(args.file)
    if list(images.shape[1:]) != report["images"] or images.max() >= report["levels"]:
        raise UsageError(
            f"{args.file}: images of shape {list(images.shape[1:])} up to {images.max()}, the flow has {report['images']} and "
            f"{report['levels']} levels."
        )
    log_prob = np.asarray(model.predict(images, batch_size=min(len(images), 500), verbose=0), np.float64)
    bits = -log_prob / (np.log(2.0) * np.prod(report["images"]))
    print(
        f"{len(images)} images: {np.mean(bits):.4f} bits per dimension (standard error {np.std(bits) / np.sqrt(len(bits)):.4f})"
    )
    print(f"least likely: image {int(np.argmax(bits)) + 1}, {np.max(bits):.4f} bits per dimension")
    if args.out:
        data.write_csv(args.out, bits[:, None], ["bits_per_dim"])
        print(f"wrote the bits per dimension of each image to {args.out}")
    return 0


def draw_images(path: pathlib.Path, model, report: dict, held_out: np.ndarray) -> bool:
    """Draw held-out images, samples and the history. Without matplotlib, print how to install it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture was drawn: it needs matplotlib (pip install 'tfp_flows[plots]')", file=sys.stderr)
        return False
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
    figure.savefig(path, dpi=110)
    return True
