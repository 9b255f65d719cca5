"""Usual wrong answers of assignment 04: for each graded cell, what is wrong, and the change of the solution."""

WRONG = {
    "checkerboard": {
        "begins with one": ("rows + columns + orientation", "rows + columns + 1 + orientation"),
        "orientation ignored": (" + orientation", ""),
        "stripes": ("rows + columns", "rows + 0 * columns"),
        "no channel axis": ("[..., tf.newaxis]", ""),
        "height for width": ("shape[1]", "shape[0]"),
    },
    "channel-mask": {
        "halves swapped": (">= num_channels // 2", "< num_channels // 2"),
        "orientation ignored": ("if orientation == 0", "if True"),
        "alternating": (">= num_channels // 2", "% 2 == 1"),
        "no axes of the image": ("[tf.newaxis, tf.newaxis]", ""),
    },
    "coupling-forward": {
        "network sees everything": ("fn(b * x)", "fn(x)"),
        "masks swapped": ("b * x + (1.0 - b) * (x", "(1.0 - b) * x + b * (x"),
        "masked values dropped": ("return b * x + ", "return "),
        "shift before the scale": ("x * tf.exp(log_scale) + shift", "(x + shift) * tf.exp(log_scale)"),
        "log-scale for scale": ("tf.exp(log_scale)", "log_scale"),
    },
    "coupling-inverse": {
        "network sees everything": ("fn(b * y)", "fn(y)"),
        "sign of the log-scale": ("tf.exp(-log_scale)", "tf.exp(log_scale)"),
        "shift after the scale": ("(y - shift) * tf.exp(-log_scale)", "(y * tf.exp(-log_scale) - shift)"),
        "shift added": ("(y - shift)", "(y + shift)"),
        "the other values": ("fn(b * y)", "fn((1.0 - b) * y)"),
    },
    "coupling-log-det": {
        "over all values": ("(1.0 - b) * log_scale", "log_scale"),
        "of the masked values": ("(1.0 - b) * log_scale", "b * log_scale"),
        "sign": ("return tf", "return -tf"),
        "mean": ("tf.reduce_sum", "tf.reduce_mean"),
        "over the batch too": (", axis=[-3, -2, -1]", ""),
        "scale instead of its logarithm": ("(1.0 - b) * log_scale", "(1.0 - b) * tf.exp(log_scale)"),
    },
    "squeeze": {
        "axes of the blocks not exchanged": ("[0, 1, 3, 2, 4, 5]", "[0, 1, 2, 3, 4, 5]"),
        "column by column": ("[0, 1, 3, 2, 4, 5]", "[0, 1, 3, 4, 2, 5]"),
        "channel before the place": ("[0, 1, 3, 2, 4, 5]", "[0, 1, 3, 5, 2, 4]"),
        "height for width": ("h // 2, 2, w // 2, 2, c", "2, h // 2, 2, w // 2, c"),
        "plain reshape": ("tf.reshape(tf.transpose(blocks, [0, 1, 3, 2, 4, 5])", "tf.reshape(x"),
    },
    "block": {
        "listed from the first": ("steps[::-1]", "steps"),
        "no ActNorm at the end": ("    steps.append(tfb.Invert(tff.ActNorm(4 * channels)))\n", ""),
        "squeeze forgotten": (", tff.Squeeze()]", "]"),
        "channels of the squeezed image": ("ActNorm(4 * channels)", "ActNorm(channels)"),
        "networks swapped": ("fns[:3]", "fns[3:]"),
    },
    "multiscale": {
        "last block of squeezed size": ("(h // 2, w // 2, 2 * c)", "(h // 2, w // 2, 4 * c)"),
        "blocks not inverted": ('tfb.Invert(first, name="scale_0")', "first"),
        "one scale": (
            '[tfb.Invert(first, name="scale_0"), tfb.Invert(tfb.Chain(last[::-1]), name="scale_1")]',
            '[tfb.Invert(first, name="scale_0")]',
        ),
        "no squeeze in the shapes": ("(h // 2, w // 2, 4 * c), filters", "image_shape, filters"),
        "blocks swapped": ("tff.MultiScale(blocks, image_shape)", "tff.MultiScale(blocks[::-1], image_shape)"),
    },
    "model": {
        "no pixels": (
            "tfb.Chain([pixels, realnvp_multiscale(image_shape, filters)])",
            "realnvp_multiscale(image_shape, filters)",
        ),
        "logit the wrong way": ("tfb.Invert(tff.get_preprocess_bijector(0.05))", "tff.get_preprocess_bijector(0.05)"),
        "chain the wrong way": (
            "[pixels, realnvp_multiscale(image_shape, filters)]",
            "[realnvp_multiscale(image_shape, filters), pixels]",
        ),
        "base of images": (
            "tfd.MultivariateNormalDiag(tf.zeros(size), tf.ones(size))",
            "tfd.Normal(tf.zeros(image_shape), 1.0)",
        ),
        "the bijector only": ("return tfd.TransformedDistribution(base, tfb", "return (tfb"),
    },
}
