"""Usual wrong answers of assignment 01: for each graded cell, what is wrong, and the change of the solution."""

WRONG = {
    "log-prob-of": {
        "sign of the log-det": ("+ inverse_log_det(x)", "- inverse_log_det(x)"),
        "log-det at z": ("inverse_log_det(x)", "inverse_log_det(z)"),
        "no log-det": (" + inverse_log_det(x)", ""),
        "normal density not normalized": (" - 0.5 * np.log(2.0 * np.pi)", ""),
        "density of x for z": ("z = inverse(x)", "z = x"),
    },
    "integral": {
        "width forgotten": (" * (x[1] - x[0])", ""),
        "sum of the ends": ("/ 2.0", ""),
        "log-density integrated": ("np.exp(log_prob(x))", "log_prob(x)"),
        "width of one point too many": ("(x[1] - x[0])", "(high - low) / n"),
    },
    "numerical-log-det": {
        "difference over one step": ("/ (2.0 * step)", "/ step"),
        "no absolute value": (
            "np.abs((f(x + step) - f(x - step)) / (2.0 * step))",
            "(f(x + step) - f(x - step)) / (2.0 * step)",
        ),
        "no logarithm": ("np.log(np.abs(", "(np.abs("),
        "forward difference": ("f(x - step)) / (2.0 * step)", "f(x)) / step"),
    },
    "softsign": {
        "derivative not squared": ("-2.0 * tf.math.log", "-1.0 * tf.math.log"),
        "sign of the log-det": ("-2.0 * tf.math.log", "2.0 * tf.math.log"),
        "log-det of the forward map": ("tf.math.log(1.0 - tf.abs(x))", "tf.math.log(1.0 + tf.abs(x))"),
        "inverse like the forward map": ("x / (1.0 - tf.abs(x))", "x / (1.0 + tf.abs(x))"),
        "no absolute value": ("z / (1.0 + tf.abs(z))", "z / (1.0 + z)"),
        "another squashing map": ("z / (1.0 + tf.abs(z))", "tf.tanh(z)"),
    },
    "positive-mode": {
        "mode of z": ("return z / (1.0 + z)", "return z"),
        "deviation for variance": ("s**2", "s"),
        "negative root": ("-1.0 + np.sqrt", "-1.0 - np.sqrt"),
        "factor of the log-det forgotten": ("8.0 * s**2", "4.0 * s**2"),
    },
    "jacobian-log-det": {
        "sign of the determinant": (")[1]", ")[0]"),
        "determinant without logarithm": (
            "np.linalg.slogdet(tape.batch_jacobian(y, x))[1]",
            "np.linalg.det(tape.batch_jacobian(y, x))",
        ),
        "diagonal only": (
            "np.linalg.slogdet(tape.batch_jacobian(y, x))[1]",
            "np.log(np.abs(np.diagonal(tape.batch_jacobian(y, x), axis1=1, axis2=2))).sum(axis=-1)",
        ),
        "gradient of the sum": (
            "np.linalg.slogdet(tape.batch_jacobian(y, x))[1]",
            "np.log(np.abs(tape.gradient(y, x))).sum(axis=-1)",
        ),
    },
    "log-prob-of-chain": {
        "from the first map": ("reversed(bijectors)", "bijectors"),
        "log-dets subtracted": ("+ total", "- total"),
        "log-det at the wrong point": (
            "        total += bijector.inverse_log_det_jacobian(x, event_ndims=1)\n        x = bijector.inverse(x)\n",
            "        x = bijector.inverse(x)\n        total += bijector.inverse_log_det_jacobian(x, event_ndims=1)\n",
        ),
        "forward instead of inverse": ("x = bijector.inverse(x)", "x = bijector.forward(x)"),
        "only the last log-det": ("total +=", "total ="),
        "log-det of each coordinate": ("event_ndims=1", "event_ndims=0"),
    },
    "bend": {
        "inverse adds too": ("x[..., 0] - x[..., 1] ** 2", "x[..., 0] + x[..., 1] ** 2"),
        "not divided": ("** 2 / 4.0", "** 2"),
        "other coordinate bent": (
            "z[..., 0] + z[..., 1] ** 2 / 4.0, z[..., 1]",
            "z[..., 0], z[..., 1] + z[..., 0] ** 2 / 4.0",
        ),
        "determinant instead of its logarithm": ("tf.zeros([], x.dtype)", "tf.ones([], x.dtype)"),
        "derivative as log-det": ("tf.zeros([], x.dtype)", "x[..., 1] / 2.0"),
    },
}
