"""Access to ArviZ, whose packages differ before and after version 1 (`pip install "tfp_flows[diagnostics]"`)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

_EQUAL = 1e-3  # nats


def _missing(error: ImportError) -> ImportError:
    return ImportError(f'This needs ArviZ: pip install "tfp_flows[diagnostics]" ({error})')


def pareto_shape(log_weights: np.ndarray) -> float:
    """Return the Pareto shape of the largest weights of `log_weights` `[n]`; minus infinity if they are all equal."""
    finite = log_weights[np.isfinite(log_weights)]
    if len(finite) == 0 or np.ptp(finite) < _EQUAL:  # rounding errors have no tail that could be fitted
        return -np.inf
    try:
        from arviz_stats.base import array_stats
    except ImportError:
        try:
            from arviz import psislw
        except ImportError as error:
            raise _missing(error) from error
        return float(psislw(log_weights)[1])
    return float(array_stats.psislw(-log_weights)[1])  # expects log-likelihoods, of the opposite sign


def rhat_and_ess(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rank-normalized split R-hat, and bulk and tail effective sample sizes, `[D]` each, of draws `[chains, n, D]`."""
    try:
        from arviz_stats.base import array_stats
    except ImportError:
        try:
            import arviz
        except ImportError as error:
            raise _missing(error) from error
        columns = np.moveaxis(draws, -1, 0)
        measures = (arviz.rhat, lambda x: arviz.ess(x, method="bulk"), lambda x: arviz.ess(x, method="tail"))
        return tuple(np.array([float(measure(x)) for x in columns]) for measure in measures)
    columns = np.moveaxis(draws, -1, 0)
    rhat = np.array([float(array_stats.rhat(x)) for x in columns])
    bulk = np.array([float(array_stats.ess(x, method="bulk")) for x in columns])
    tail = np.array([float(array_stats.ess(x, method="tail", prob=(0.05, 0.95))) for x in columns])
    return rhat, bulk, tail


def inference_data(labels: list[str], draws: np.ndarray) -> Any:
    """Return ArviZ's container of draws `[chains, n, P]`, whose labels, such as `"theta[0]"`, give names and indices."""
    posterior = {}
    for name, columns in itertools.groupby(range(len(labels)), key=lambda i: labels[i].partition("[")[0]):
        columns = list(columns)
        index = labels[columns[-1]].partition("[")[2].rstrip("]")
        shape = [int(n) + 1 for n in index.split(",")] if index else []
        posterior[name] = draws[..., columns].reshape([*draws.shape[:2], *shape])
    try:
        from arviz_base import from_dict
    except ImportError:
        try:
            from arviz import from_dict as earlier
        except ImportError as error:
            raise _missing(error) from error
        return earlier(posterior=posterior)
    return from_dict({"posterior": posterior})
