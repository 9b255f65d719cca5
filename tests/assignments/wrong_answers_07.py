"""Usual wrong answers of assignment 07: for each graded cell, what is wrong, and the change of the solution."""

WRONG = {
    "exact-posterior": {
        "prior ignored": ("1.0 / prior_scale**2 + len(y)", "len(y)"),
        "one observation": ("+ len(y) / noise", "+ 1.0 / noise"),
        "variance": ("precision**-0.5", "1.0 / precision"),
        "mean of the data": ("np.sum(y) / noise_scale**2 / precision", "np.mean(y)"),
        "deviations for variances": ("1.0 / prior_scale**2", "1.0 / prior_scale"),
    },
    "make-joint": {
        "one observation for all": (
            "tfd.Sample(tfd.Normal(loc, scale), 8)",
            "tfd.Sample(tfd.Normal(loc, scale), 1)",
        ),
        "noise of one": ("tfd.Normal(loc, scale)", "tfd.Normal(loc, 1.0)"),
        "variance for deviation": ("tfd.Normal(0.0, 3.0)", "tfd.Normal(0.0, 9.0)"),
        "arguments swapped": ("tfd.Normal(loc, scale)", "tfd.Normal(scale, loc)"),
        "half-normal scale": ("tfd.LogNormal(0.0, 0.5)", "tfd.HalfNormal(1.0)"),
    },
    "fit-posterior": {
        "not trained": ("    model.fit(steps_per_epoch=steps // 10, epochs=10, verbose=0)\n", ""),
        "other data": ("experimental_pin(y=y)", "experimental_pin(y=0.0 * y)"),
        "mean of the data pinned": ("experimental_pin(y=y)", "experimental_pin(y=0.0 * y + np.mean(y))"),
        "returns the posterior": ("return model", "return model.posterior"),
    },
    "fit-neural": {
        "not trained": (
            "    posterior.fit(num_simulations=num_simulations, epochs=epochs, batch_size=200, verbose=0)\n",
            "",
        ),
        "returns the flow": ("return posterior", "return posterior.flow"),
        "parameter taken for data": ('observed="y"', 'observed="loc"'),
        "no epochs": ("epochs=epochs", "epochs=0"),
    },
    "ranks": {
        "above instead of below": ("draws < theta", "draws > theta"),
        "share": ("np.sum", "np.mean"),
        "over data sets": ("axis=0", "axis=1"),
        "over all": (", axis=0", ""),
    },
    "coverage": {
        "one-sided": ("[(1.0 - level) / 2.0, (1.0 + level) / 2.0]", "[0.0, level]"),
        "tails not halved": (
            "[(1.0 - level) / 2.0, (1.0 + level) / 2.0]",
            "[1.0 - level, level]",
        ),
        "all parameters together": ("(theta <= high), axis=0", "(theta <= high)"),
        "outside": ("np.mean((theta >= low) & (theta <= high)", "np.mean((theta < low) | (theta > high)"),
        "quantiles of all data sets": ("/ 2.0], axis=0)", "/ 2.0])"),
    },
    "verdict": {
        "width the wrong way": ("if width > 0", "if width < 0"),
        "shift the wrong way": ("if shift > 0", "if shift < 0"),
        "no standard errors": (
            "found.shift[0] / found.error, found.width[0] / found.error",
            "100.0 * found.shift[0], 100.0 * found.width[0]",
        ),
        "shift never": ("abs(shift) > 3.0", "False"),
    },
}
