"""Detection of tables without a density: discrete, rounded or repeated values, and linearly dependent columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_ROWS = 10_000  # evenly spaced rows that are checked
FEWEST_ROWS = 50  # too few rows for a check of ties


def find_degenerate(rows: np.ndarray, columns: Sequence[str] | None = None) -> list[str]:
    """Return one sentence, with columns and remedy, for each reason why the density of finite rows `[N, D]` is unbounded.

    Constant and equal columns are not reported. Cost: sorts of up to 10,000 values, and a `D x D` eigenvalue problem.
    """
    n, size = rows.shape
    if n < FEWEST_ROWS or size == 0:
        return []
    sample = np.ascontiguousarray(rows[:: -(-n // MOST_ROWS)], np.float64)
    labels = [f"column {j}" for j in range(size)] if columns is None else [f"column {c!r}" for c in columns]
    moving = np.flatnonzero(sample.min(axis=0) < sample.max(axis=0))
    findings = _repeated_rows(sample) if len(moving) else []
    findings += _repeated_values(sample if not findings else np.unique(sample, axis=0), moving, labels)
    return findings + _dependent_columns(sample, moving, labels)


def _repeated_rows(sample: np.ndarray) -> list[str]:
    distinct = len(np.unique(sample, axis=0))
    if distinct > 0.9 * len(sample) or sample.shape[1] < 2:
        return []
    # If each column has few values, equal rows must occur, and the columns are reported instead.
    if all(len(np.unique(column)) < 0.5 * distinct for column in sample.T):
        return []
    return [
        f"only {distinct} of {len(sample)} rows that were looked at are distinct: the density of a repeated row has no "
        "bound. Leave repetitions out, and hold out rows before they are repeated"
    ]


def _repeated_values(sample: np.ndarray, moving: np.ndarray, labels: Sequence[str]) -> list[str]:
    whole, rounded, findings = [], [], []
    for j in moving:
        column = sample[:, j]
        values, counts = np.unique(column, return_counts=True)
        largest = int(np.argmax(counts))
        if len(values) > 0.7 * len(column):
            # A single value, such as zero, may still be frequent.
            common = counts[largest] > max(3, 0.05 * len(column))
        else:
            common = counts[largest] > 0.2 * len(column) and counts[largest] > 3 * np.partition(counts, -2)[-2]
        if common:
            findings.append(
                f"{labels[j]} is {values[largest]:g} in {100.0 * counts[largest] / len(column):.0f} % of the rows: the density "
                "of a single value has no bound. Model whether it takes the value apart from the rest"
            )
        elif len(values) <= 0.7 * len(column):
            (whole if np.all(values == np.round(values)) else rounded).append((j, values))
    if whole and len(whole) == len(moving):
        levels = int(max(values[-1] for _, values in whole)) + 1
        lowest = min(values[0] for _, values in whole)
        remedy = "add uniform noise"
        if lowest >= 0 and levels <= 2**16:
            remedy = f"for levels, use FlowModel(..., dequantize={levels})"
        return [*findings, f"all columns hold whole numbers: the density of discrete values has no bound; {remedy}"]
    no_bound = "the density of discrete values has no bound. Add uniform noise"
    if whole:
        verb, it = ("holds", "the column") if len(whole) == 1 else ("hold", "such columns")
        findings.append(
            f"{_which(whole, labels)} {verb} whole numbers: {no_bound} from [0, 1), or make {it} a condition"
        )
    if rounded:
        verb = "is" if len(rounded) == 1 else "are"
        steps = sorted({f"{float(np.min(np.diff(values))):.3g}" for _, values in rounded}, key=float)
        apart = steps[0] if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        findings.append(
            f"{_which(rounded, labels)} {verb} rounded (values {apart} apart at the least): {no_bound} of the size of a step"
        )
    return findings


def _which(found: list[tuple[int, np.ndarray]], labels: Sequence[str]) -> str:
    """Return `column 'a'`, or `columns 'a', 'b'`."""
    names = [labels[j].removeprefix("column ") for j, _ in found]
    return f"column {names[0]}" if len(names) == 1 else f"columns {', '.join(names)}"


def _dependent_columns(sample: np.ndarray, moving: np.ndarray, labels: Sequence[str]) -> list[str]:
    if not 2 <= len(moving) <= 512 or len(sample) < 2 * len(moving):
        return []
    part = sample[:, moving]
    total = part.sum(axis=1)
    if np.std(total) < 1e-5 * np.mean(part.std(axis=0)):
        return [
            f"the rows sum to {np.mean(total):.4g}, so the last column follows from the others and the likelihood is "
            "unbounded: leave one column out"
            + (', or give support="simplex"' if abs(np.mean(total) - 1.0) < 1e-3 else "")
        ]
    standardized = (part - part.mean(axis=0)) / part.std(axis=0)
    _, first = np.unique(standardized, axis=1, return_index=True)  # equal columns are reported elsewhere
    kept = np.sort(first)
    values, vectors = np.linalg.eigh(np.cov(standardized[:, kept].T).reshape(len(kept), len(kept)))
    if len(kept) < 2 or values[0] > 1e-9:
        return []
    names = [labels[moving[kept[k]]] for k in np.flatnonzero(np.abs(vectors[:, 0]) > 0.05)]
    return [f"{', '.join(names)} depend on each other linearly, so the likelihood is unbounded: leave one of them out"]
