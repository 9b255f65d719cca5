"""Usual wrong answers of assignment 08: for each graded cell, what is wrong, and the change of the solution."""

WRONG = {
    "path": {
        "ends swapped": ("(1.0 - t) * x0 + t * x1", "t * x0 + (1.0 - t) * x1"),
        "velocity backward": (", x1 - x0", ", x0 - x1"),
        "time along the wrong axis": ("t[:, tf.newaxis]", "t[tf.newaxis, :]"),
        "velocity of the rest of the path": (", x1 - x0", ", (1.0 - t) * (x1 - x0)"),
    },
    "cfm-loss": {
        "mean over dimensions": ("tf.reduce_sum(", "tf.reduce_mean("),
        "not squared": (" ** 2", ""),
        "evaluated at the data": ("velocity_fn(t, x_t)", "velocity_fn(t, x1)"),
        "target is the point": ("- target", "- x_t"),
        "sum over rows": ("tf.reduce_mean(tf", "tf.reduce_sum(tf"),
    },
    "train-step": {
        "no step": ("    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))\n", ""),
        "noise of zero": ("tf.random.normal(tf.shape(x1))", "tf.zeros_like(x1)"),
        "one time": ("tf.random.uniform(tf.shape(x1)[:1])", "tf.fill(tf.shape(x1)[:1], 0.5)"),
        "uniform noise": ("tf.random.normal(tf.shape(x1))", "tf.random.uniform(tf.shape(x1))"),
        "normal times": ("tf.random.uniform(tf.shape(x1)[:1])", "tf.random.normal(tf.shape(x1)[:1])"),
        "one time for the batch": (
            "tf.random.uniform(tf.shape(x1)[:1])",
            "tf.fill(tf.shape(x1)[:1], tf.random.uniform([]))",
        ),
    },
    "euler": {
        "step size forgotten": ("x + dt * velocity", "x + velocity"),
        "time stands still": ("i * dt, x.dtype", "0.0, x.dtype"),
        "time at the end of the step": ("i * dt, x.dtype", "(i + 1) * dt, x.dtype"),
        "backward": ("x + dt", "x - dt"),
        "always at the noise": ("x.dtype)), x)", "x.dtype)), x0)"),
    },
    "log-likelihood": {
        "sign of the integral": ("normal.log_prob(x) - integral", "normal.log_prob(x) + integral"),
        "forward in time": ("x - dt * v", "x + dt * v"),
        "step size forgotten": ("integral + dt * trace", "integral + trace"),
        "no trace": ("normal.log_prob(x) - integral", "normal.log_prob(x)"),
        "density of the data": ("normal.log_prob(x) - integral", "normal.log_prob(x1) - integral"),
        "time not reversed": ("time = 1.0 - i * dt", "time = i * dt"),
    },
    "fit-matching": {
        "not trained": ("    model.fit(x, batch_size=256, epochs=epochs, verbose=0)\n", ""),
        "pairing ignored": ("pairing=pairing, ", ""),
        "returns the flow": ("return model", "return flow"),
        "not standardized": ("preprocess=tff.standardize(x), ", ""),
    },
}
