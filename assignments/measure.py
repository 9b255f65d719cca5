"""Measure the finished notebooks: seconds, processor seconds and peak memory of the kernel.

`python assignments/measure.py 02 04` runs two of them at full size. `--cells` prints a line for each slow or large cell. It reads
`/proc`, so it needs Linux.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import tempfile
import time

import build
import jupyter_client
import nbclient

HERTZ = os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process and its peak, in GB."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    sizes = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return tuple(int(sizes[key].split()[0]) / 2**20 for key in ("VmRSS", "VmHWM"))


def processor(pid: int) -> float:
    """Return the processor seconds of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HERTZ


def measure(folder: pathlib.Path, cells: bool) -> None:
    notebook = build.source(folder)
    os.environ.setdefault("MPLBACKEND", "agg")
    with tempfile.TemporaryDirectory() as here:
        manager = jupyter_client.KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=here)
        pid, begin, last = manager.provisioner.process.pid, time.time(), [time.time(), 0.0]

        def after(cell, cell_index, execute_reply=None):
            now, (resident, peak) = time.time(), memory(pid)
            if cells and (now - last[0] > 1.0 or peak - last[1] > 0.05):
                name = cell.metadata["nbgrader"]["grade_id"]
                print(f"  {name}: {now - last[0]:.0f} s, now {resident:.2f} GB, peak {peak:.2f} GB", flush=True)
            last[:] = now, peak

        try:
            nbclient.NotebookClient(notebook, timeout=3600, km=manager, on_cell_executed=after).execute()
            seconds, (_, peak) = time.time() - begin, memory(pid)
            load = os.getloadavg()[1]
            print(
                f"{folder.name}: {seconds:.0f} s, processor {processor(pid):.0f} s, peak {peak:.2f} GB, load {load:.1f}"
            )
        finally:
            manager.shutdown_kernel(now=True)
    for cell in notebook.cells if cells else ():
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stdout":
                print(output.text, end="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="+", help="numbers of assignments, such as 02")
    parser.add_argument(
        "--cells", action="store_true", help="also print slow or large cells, and what the notebook prints"
    )
    args = parser.parse_args()
    for number in args.numbers:
        (folder,) = build.ROOT.glob(f"{number}_*")
        measure(folder, args.cells)


if __name__ == "__main__":
    main()
