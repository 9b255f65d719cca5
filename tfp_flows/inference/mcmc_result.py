"""Draws of Markov chains with their diagnostics."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfp_flows.evaluation.arviz import inference_data


@dataclasses.dataclass(frozen=True)
class MCMCResult:
    """Draws of Markov chains, with diagnostics. `print` shows them as a table.

    Attributes:
      draws: The unknown parts in the model's structure, `[num_samples, num_chains, ...]`; for a target that is a function, the
        vectors `[num_samples, num_chains, D]`.
      labels: Name of each parameter.
      values: The parameters as one array, `[num_chains, num_samples, P]`.
      rhat: Rank-normalized split R-hat of each parameter; below 1.01 if the chains mixed.
      ess_bulk, ess_tail: Effective sample sizes of each parameter.
      num_divergences: Number of divergent trajectories among the draws.
      num_gradients: Number of gradients of the target, `"warmup"` and `"sampling"`, summed over chains.
      acceptance: Mean acceptance probability of the draws.
    """

    draws: Any
    labels: list[str]
    values: np.ndarray
    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    num_divergences: int
    num_gradients: dict[str, int]
    acceptance: float

    @property
    def warnings(self) -> list[str]:
        """Sentences about what makes the draws unreliable; an empty list if nothing does."""
        found = []
        rhat = np.where(np.isfinite(self.rhat), self.rhat, np.inf)  # a constant parameter has none
        worst = int(np.argmax(rhat))
        if rhat[worst] >= 1.01:
            found.append(
                f"The chains did not mix: R-hat of {self.labels[worst]} is {rhat[worst]:.3f}, above 1.01. Increase "
                "`num_warmup` and `num_samples`."
            )
        if self.num_divergences:
            found.append(
                f"{self.num_divergences} trajectories diverged: the draws may miss a part of the target. Increase "
                "`num_warmup` or `target_accept`."
            )
        sizes = np.nan_to_num(np.minimum(self.ess_bulk, self.ess_tail), nan=0.0)
        least = int(np.argmin(sizes))
        size = sizes[least]
        if size < 100 * len(self.values):
            found.append(f"{self.labels[least]} has {size:.0f} effective samples, fewer than 100 for each chain.")
        return found

    def __str__(self) -> str:
        width = max(9, *map(len, self.labels))
        flat = self.values.reshape(-1, self.values.shape[-1])
        warmup, sampling = self.num_gradients["warmup"], self.num_gradients["sampling"]
        lines = [
            f"{self.values.shape[0]} chains of {self.values.shape[1]} draws, {warmup} + {sampling} gradients, acceptance "
            f"{self.acceptance:.2f}, {self.num_divergences} divergences",
            f"{'':{width}} {'mean':>10} {'deviation':>10} {'R-hat':>7} {'ESS bulk':>9} {'ESS tail':>9}",
        ]
        columns = (self.labels, flat.mean(axis=0), flat.std(axis=0), self.rhat, self.ess_bulk, self.ess_tail)
        for label, mean, deviation, rhat, bulk, tail in zip(*columns, strict=True):
            lines.append(f"{label:{width}} {mean:10.4g} {deviation:10.4g} {rhat:7.3f} {bulk:9.0f} {tail:9.0f}")
        return "\n".join([*lines, *self.warnings])

    def to_inference_data(self) -> Any:
        """Return the draws as ArviZ's container.

        Raises:
          ImportError: If ArviZ is not installed (`pip install "tfp_flows[diagnostics]"`).
        """
        return inference_data(self.labels, self.values)
