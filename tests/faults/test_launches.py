"""Training on dask-backed data in a new process, after dask has run in the old one.

The loader has no worker processes, only a thread (`cubecast.ahead`). The processes here are the user's: a script that
has looked at its data and then starts its training in another process.
"""

import pytest

from cubecast.sources import open_cube
from cubecast.write import write_cube

SECONDS = 120
FIT = """
import torch
from cubecast.nowcaster import Nowcaster
from cubecast.sources import open_cube
torch.set_num_threads(1)
model = Nowcaster(history=3, horizon=2, hidden_channels=[4], patch=4, crop=16, epochs=1)
model.fit(open_cube(path, chunks={"time": 1}))
"""
LOOK_AND_LAUNCH = f"""
import multiprocessing
import sys
from cubecast.sources import open_cube
open_cube(path, chunks={{"time": 1}}).mean().compute(scheduler="threads")
process = multiprocessing.get_context(method).Process(target=exec, args=({FIT!r}, {{"path": path}}))
process.start()
process.join({SECONDS})
sys.exit(99 if process.exitcode is None else process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_launches_after_dask_has_run(suffix, method, tally, launch, radar, memory_disk):
    fault = tally(f"training launched by {method} on {suffix[1:]}, after dask has run", short=1, full=50)
    path = memory_disk / f"radar{suffix}"
    write_cube(open_cube(radar), path)
    for seed in fault:
        process = launch(LOOK_AND_LAUNCH, path=str(path), method=method)
        process.join(SECONDS + 30)
        if process.exitcode != 0:
            fault.lost(seed, "hangs" if process.exitcode in (None, 99) else f"exit code {process.exitcode}")
        process.kill()
        process.join()
