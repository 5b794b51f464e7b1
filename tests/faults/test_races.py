"""Two writers on one name: whoever is last wins, and what is there is always whole and of one of them."""

import time

import numpy as np
import pytest

from cubecast.baselines import persistence
from cubecast.write import read_forecast, write_forecast

WRITER = """
from cubecast.errors import OutputError
from cubecast.write import write_forecast
gate.wait()
try:
    write_forecast(forecast, path)
except OutputError as error:
    refused.put(str(error))
"""


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_two_writers_on_one_name(suffix, tally, launch, rain, memory_disk, context):
    fault = tally(f"races of two writers of one {suffix[1:]}", short=3, full=50)
    forecast = persistence(rain(6), reference=rain(6).time.values[[3, 5]], horizon=3)
    path, lost_races = memory_disk / f"forecast{suffix}", 0
    write_forecast(forecast * 0, path)
    for seed in fault:
        gate, refused = context.Barrier(2), context.SimpleQueue()
        values = (2 * seed + 1, 2 * seed + 2)
        writers = [launch(WRITER, forecast=forecast * 0 + v, path=path, gate=gate, refused=refused) for v in values]
        while any(w.exitcode is None for w in writers):
            try:
                found = np.unique(read_forecast(path).rainfall_rate.values)
                if suffix == ".nc" and found.size != 1:
                    fault.lost(seed, f"mixed meanwhile: {found}")
            except Exception as error:
                # the swap of two folders takes two system calls: between them a reader may find nothing
                if suffix == ".nc":
                    fault.lost(seed, f"unreadable meanwhile: {error}")
            time.sleep(0.02)
        said = [] if refused.empty() else [refused.get()]
        lost_races += len(said)
        if any(w.exitcode for w in writers) or len(said) > (suffix == ".zarr"):
            fault.lost(seed, f"exit codes {[w.exitcode for w in writers]}, {said}")
        try:
            final = np.unique(read_forecast(path).rainfall_rate.values).tolist()
        except Exception as error:
            final = [str(error)]
        if len(final) != 1 or final[0] not in values:
            fault.lost(seed, f"mixed or unreadable: {final}")
        left = sorted(p.name for p in memory_disk.iterdir())
        if left != [path.name]:
            fault.lost(seed, f"left over: {left}")
    fault.note(f"{lost_races} writers were refused because the other was replacing the folder")
