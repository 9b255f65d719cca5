"""Usual wrong answers of assignment 05: for each graded cell, what is wrong, and the change of the solution."""

WRONG = {
    "knots": {
        "first knot forgotten": ("np.concatenate([[0.0], np.cumsum(widths)])", "np.cumsum(widths)"),
        "interval of half the size": ("2.0 * bound * widths", "bound * widths"),
        "begins at zero": ("return -bound + ", "return "),
        "softmax overflows": ("raw - np.max(raw)", "raw"),
    },
    "rational-quadratic": {
        "ends swapped": ("(s * t**2 + d0 * u)", "(s * t**2 + d1 * u)"),
        "denominator not squared": ("/ below**2", "/ below"),
        "slope not squared": ("s**2 * (d1", "s * (d1"),
        "derivative with the ends swapped": ("d1 * t**2 + 2.0 * s * u + d0 *", "d0 * t**2 + 2.0 * s * u + d1 *"),
    },
    "spline": {
        "not the identity outside": ("np.where(inside, ys[k] + h * r, x)", "ys[k] + h * r"),
        "log-det outside": ("np.where(inside, np.log(derivative), 0.0)", "np.log(derivative) + 0.1"),
        "slope upside down": ("h / w, slopes[k]", "w / h, slopes[k]"),
        "position not divided by the width": ("(x - xs[k]) / w", "(x - xs[k])"),
        "derivative without a logarithm": ("np.log(derivative)", "derivative"),
        "bin off by one": ('side="right") - 1', 'side="right")'),
    },
    "spline-inverse": {
        "other root": ("-b - np.sqrt", "-b + np.sqrt"),
        "sign of c": ("-s * v", "s * v"),
        "bins of the wrong axis": ("np.searchsorted(ys, y", "np.searchsorted(xs, y"),
        "textbook root": (
            "2.0 * c / (-b - np.sqrt(b**2 - 4.0 * a * c))",
            "(-b + np.sqrt(b**2 - 4.0 * a * c)) / (2.0 * a)",
        ),
    },
    "coupling": {
        "always affine": ("if num_bins else", "if False else"),
        "number of layers ignored": ("num_layers=num_layers", "num_layers=8"),
        "number of bins ignored": ("SplineTransformer(num_bins,", "SplineTransformer(16,"),
        "not standardized": ("preprocess=tff.standardize(data), ", ""),
    },
    "negative-elbo": {
        "mean over pixels": ("tf.reduce_sum", "tf.reduce_mean"),
        "sign of the prior": ("- log_prior", "+ log_prior"),
        "the ELBO": ("-log_likelihood + log_q - log_prior", "log_likelihood - log_q + log_prior"),
        "mean over images": ("axis=-1)", "axis=0)"),
    },
    "make-vae": {
        "posterior without features": ("conditional_size=FEATURES, ", ""),
        "no flow prior": ("prior=prior", "prior=None"),
        "always a flow posterior": ("if flow_posterior:", "if True:"),
        "flags swapped": ("if flow_prior:", "if flow_posterior:"),
    },
}
