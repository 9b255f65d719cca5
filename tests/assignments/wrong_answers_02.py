"""Usual wrong answers of assignment 02: for each graded cell, what is wrong, and the change of the solution."""

WRONG = {
    "planar": {
        "derivative of tanh without the square": ("(1.0 - t**2)", "(1.0 - t)"),
        "determinant without logarithm": (
            "tf.math.log(tf.abs(1.0 + tf.reduce_sum(u * w) * (1.0 - t**2)))",
            "tf.abs(1.0 + tf.reduce_sum(u * w) * (1.0 - t**2))",
        ),
        "inner product forgotten": ("tf.reduce_sum(u * w)", "tf.reduce_sum(u)"),
        "shift forgotten": ("tf.linalg.matvec(z, w) + b", "tf.linalg.matvec(z, w)"),
        "one forgotten": ("tf.abs(1.0 + tf", "tf.abs(tf"),
        "z forgotten": ("return z + u *", "return u *"),
    },
    "constrain": {
        "logarithm forgotten": ("tf.math.softplus(wu)", "tf.exp(wu)"),
        "product not subtracted": ("- 1.0 - wu)", "- 1.0)"),
        "norm not squared": ("/ tf.reduce_sum(w**2)", "/ tf.norm(w)"),
        "one not subtracted": ("- 1.0 - wu", "- wu"),
        "along u": ("* w / tf.reduce_sum(w**2)", "* u / tf.reduce_sum(u**2)"),
        "no constraint": ("return u + ", "return u + 0.0 * "),
    },
    "energy-1": {
        "half forgotten": ("0.5 * ((tf.norm", "((tf.norm"),
        "ring not squared": ("/ 0.4) ** 2", "/ 0.4)"),
        "one mode": ("(z[:, 0] + 2.0) / 0.6", "(z[:, 0] - 2.0) / 0.6"),
        "sign of the modes": ("ring - tf", "ring + tf"),
        "modes added as logarithms": ("tf.reduce_logsumexp(modes", "tf.reduce_sum(modes"),
        "other coordinate": ("z[:, 0] - 2.0", "z[:, 1] - 2.0"),
    },
    "energy-2": {
        "coordinates swapped": ("z[:, 1] - tf.sin(2.0 * np.pi * z[:, 0]", "z[:, 0] - tf.sin(2.0 * np.pi * z[:, 1]"),
        "two pi forgotten": ("2.0 * np.pi * z", "z"),
        "half forgotten": ("0.5 * ((", "(("),
        "log-density instead of energy": ("return 0.5", "return -0.5"),
        "width not squared": ("/ 0.4) ** 2", ") ** 2 / 0.4"),
    },
    "elbo": {
        "sign of a loss": ("log_prob_fn(z) - log_q", "log_q - log_prob_fn(z)"),
        "entropy forgotten": ("log_prob_fn(z) - log_q", "log_prob_fn(z)"),
        "sum": ("tf.reduce_mean", "tf.reduce_sum"),
        "densities instead of logarithms": ("log_prob_fn(z) - log_q", "tf.exp(log_prob_fn(z)) - tf.exp(log_q)"),
        "importance weights": (
            "tf.reduce_mean(log_prob_fn(z) - log_q)",
            "tf.reduce_logsumexp(log_prob_fn(z) - log_q) - np.log(n)",
        ),
    },
    "planar-flow": {
        "one layer only": ("for _ in range(num_layers)", "for _ in range(1)"),
        "other flow": ("tff.PlanarFlow(2)", "tff.RadialFlow(2)"),
        "one layer shared": ("[tff.PlanarFlow(2) for _ in range(num_layers)]", "[tff.PlanarFlow(2)] * num_layers"),
        "base of batches": (
            "tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))",
            "tfd.Normal(tf.zeros(2), tf.ones(2))",
        ),
        "the chain itself": ("tfd.TransformedDistribution(base, tfb.Chain(", "(tfb.Chain("),
    },
    "table": {
        "another unit": ("()).kl", "()).kl / np.log(2.0) + 0.2"),
        "mass": ("()).kl", "()).mass"),
        "one target for all": ("energies[key[0]]", 'energies["u1"]'),
        "by name only": ("        key: tff", "        key[0]: tff"),
        "negative": ("key: tff.diagnostics", "key: -tff.diagnostics"),
    },
}
