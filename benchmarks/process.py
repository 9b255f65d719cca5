"""One measurement in a process of its own: `python -m <module> '{...}'`, which prints `RESULT {...}`."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def run(module: str, task: dict, label: str, threads: int) -> dict | None:
    """Return the output of the process, or `None`, with its error on stderr, if it failed."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", module, json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        print(f"{label}: failed with exit status {done.returncode}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    result = json.loads(lines[-1][len("RESULT ") :])
    values = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in result.items())
    print(f"{label}: " + ", ".join(values), flush=True)
    return result
