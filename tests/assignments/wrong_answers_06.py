"""Usual wrong answers of assignment 06: for each graded cell, what is wrong, and the change of the solution."""

WRONG = {
    "gaussianize": {
        "half a rank forgotten": ("(ranks + 0.5)", "ranks"),
        "still uniform": ("standard_normal.quantile((ranks + 0.5) / len(x)).numpy()", "(ranks + 0.5) / len(x)"),
        "one argsort": ("np.argsort(np.argsort(x, axis=0), axis=0)", "np.argsort(x, axis=0)"),
        "decreasing": ("np.argsort(np.argsort(x,", "np.argsort(np.argsort(-x,"),
        "only standardized": (
            "standard_normal.quantile((ranks + 0.5) / len(x)).numpy()",
            "(x - x.mean(axis=0)) / x.std(axis=0)",
        ),
    },
    "principal-axes": {
        "not centered": ("np.cov(x, rowvar=False)", "x.T @ x"),
        "rows taken for columns": ("))[1]", "))[1].T"),
        "whitening": (
            "return np.linalg.eigh(np.cov(x, rowvar=False))[1]",
            "w, q = np.linalg.eigh(np.cov(x, rowvar=False)); return q / np.sqrt(w)",
        ),
        "no rotation": ("np.linalg.eigh(np.cov(x, rowvar=False))[1]", "np.eye(x.shape[1])"),
    },
    "rbig-layer": {
        "axes of the input": ("principal_axes(normal)", "principal_axes(x)"),
        "no rotation": ("normal @ principal_axes(normal)", "normal"),
        "rotates first": ("return normal @ principal_axes(normal)", "return gaussianize(x @ principal_axes(x))"),
        "normal only after the rotation": ("normal = gaussianize(x)", "normal = x"),
        "whitening": (
            "return normal @ principal_axes(normal)",
            "r = normal @ principal_axes(normal); return r / r.std(axis=0)",
        ),
    },
    "column-entropy": {
        "width forgotten": ("np.log(p / (edges[1] - edges[0]))", "np.log(p)"),
        "bits": ("np.log(p /", "np.log2(p /"),
        "sign": ("-np.sum", "np.sum"),
        "empty bins": ("counts[counts > 0]", "counts"),
        "unweighted": ("np.sum(p * np.log(p", "np.mean(np.log(p"),
    },
    "total-correlation": {
        "one dimension": ("dimensions * 0.5", "0.5"),
        "last layer only": ("total += ", "total = "),
        "first layer only": ("range(num_layers)", "range(1)"),
        "sign": ("return total", "return -total"),
        "rotation before the maps": ("x = rbig_layer(x)", "x = x @ principal_axes(x)"),
    },
    "mutual-information": {
        "groups not subtracted": ("if group.shape[1] > 1:", "if False:"),
        "groups added": ("found -= ", "found += "),
        "one group only": ("in (x, y)", "in (y,)"),
        "rows stacked": ("axis=1)", "axis=0)"),
    },
    "fit-rbig": {
        "likelihood instead of NLL": ("-float(np.mean", "float(np.mean"),
        "scored on training data": ("flow.log_prob(x_test)", "flow.log_prob(x_train)"),
        "number of layers ignored": ("max_layers=max_layers", "max_layers=1"),
        "sum": ("np.mean", "np.sum"),
    },
}
