"""Usual wrong answers of assignment 03: for each graded cell, what is wrong, and the change of the solution."""

WRONG = {
    "hidden-degrees": {
        "from zero": (" + 1", ""),
        "one degree too many": ("% (event_size - 1)", "% event_size"),
        "sorted": ("np.arange(units) % (event_size - 1) + 1", "np.sort(np.arange(units) % (event_size - 1) + 1)"),
        "stops at the last degree": (
            "np.arange(units) % (event_size - 1) + 1",
            "np.minimum(np.arange(units) + 1, event_size - 1)",
        ),
    },
    "made-masks": {
        "output mask with <=": ("degrees[-1][:, None] < degrees[0]", "degrees[-1][:, None] <= degrees[0]"),
        "hidden masks with <": ("a[:, None] <= b[None, :]", "a[:, None] < b[None, :]"),
        "transposed": ("a[:, None] <= b[None, :]", "(a[:, None] <= b[None, :]).T"),
        "wrong way": ("a[:, None] <= b[None, :]", "a[:, None] >= b[None, :]"),
        "boolean": ("m.astype(np.float32)", "m"),
        "no output mask": ("    masks.append(degrees[-1][:, None] < degrees[0][None, :])\n", ""),
    },
    "made-network": {
        "no masks": ("(kernel * mask)", "kernel"),
        "ReLU of the output": ("    return h\n", "    return tf.nn.relu(h)\n"),
        "bias masked out": (" + bias", ""),
        "mask of the units": ("h @ (kernel * mask) + bias", "(h @ kernel + bias) * tf.reduce_max(mask, axis=0)"),
        "input rectified": ("if i > 0:", "if True:"),
    },
    "to-latent": {
        "sign of the log-det": ("-tf.reduce_sum(log_scale", "tf.reduce_sum(log_scale"),
        "multiplied by the scale": ("tf.exp(-log_scale)", "tf.exp(log_scale)"),
        "shift after the scale": ("(x - shift) * tf.exp(-log_scale)", "x * tf.exp(-log_scale) - shift"),
        "log-scale for scale": ("(x - shift) * tf.exp(-log_scale)", "(x - shift) / log_scale"),
        "mean over dimensions": ("-tf.reduce_sum(log_scale", "-tf.reduce_mean(log_scale"),
    },
    "to-data": {
        "one pass": ("range(u.shape[-1])", "range(1)"),
        "one pass too few": ("range(u.shape[-1])", "range(u.shape[-1] - 1)"),
        "network reads u": ("shift_and_log_scale_fn(x)", "shift_and_log_scale_fn(u)"),
        "divided by the scale": ("tf.exp(log_scale)", "tf.exp(-log_scale)"),
        "shift subtracted": ("+ shift", "- shift"),
        "transformed again and again": ("x = u * tf", "x = x * tf"),
    },
    "make-maf": {
        "one order for all layers": ("orders[i % 2]", "orders[0]"),
        "one layer": ("range(num_layers)", "range(1)"),
        "one hidden layer": ("template(hidden_units,", "template(hidden_units[:1],"),
        "base of batches": (
            "tfd.MultivariateNormalDiag(tf.zeros(2), tf.ones(2))",
            "tfd.Normal(tf.zeros(2), tf.ones(2))",
        ),
        "the chain itself": ("return tfd.TransformedDistribution(base, tfb.Chain(layers))", "return tfb.Chain(layers)"),
    },
    "train": {
        "not trained": ("epochs=epochs", "epochs=0"),
        "no held-out data": ("validation_data=x_test, ", ""),
        "returns the flow": ("return model, history", "return flow, history"),
        "returns the numbers": ("return model, history", "return model, history.history"),
        "returns the model only": ("return model, history", "return model"),
    },
    "make-iaf": {
        "not inverted": ("tfb.Invert(layer)", "layer"),
        "the whole chain inverted": ("tfb.Chain(layers)", "tfb.Invert(maf.bijector)"),
        "layers ignored": ("make_maf(num_layers, hidden_units)", "make_maf(1, hidden_units)"),
        "units ignored": ("make_maf(num_layers, hidden_units)", "make_maf(num_layers, [8])"),
        "returns the MAF": ("return tfd.TransformedDistribution(maf.distribution, tfb.Chain(layers))", "return maf"),
    },
}
