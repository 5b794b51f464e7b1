"""Lazy blocks: any index gives what NumPy gives, threads and processes may read, slices reach the files."""

import pickle

import dask
import numpy as np
import pytest

from cubecast.errors import InputError
from cubecast.sources import open_cube
from cubecast.sources.blocks import Frames, block_sizes

KEYS = [
    3,
    slice(None),
    slice(4, 1, -1),
    (slice(1, 5, 2), 2),
    (slice(None), slice(None, None, -2), slice(1, 4)),
    (0, 1, 2),
    ([4, 0, 0, 2],),
    (slice(None), [3, 1], slice(0, 0)),
    (slice(2, 2),),
    (slice(None), slice(None), np.array([4, 4, 0])),
    -1,
]


def frames(cube) -> Frames:
    graph = dict(cube.data.__dask_graph__())
    (found,) = [v for v in graph.values() if isinstance(v, Frames)]
    return found


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indices(archive, key) -> None:
    files = archive([60, 10, 20, 30, 40])
    whole = frames(open_cube(files))
    values = whole[:]
    np.testing.assert_array_equal(whole[key], values[key])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(whole))[key], values[key])


def test_threads_may_read(archive) -> None:
    cube = open_cube(archive(list(range(10, 410, 10))), chunks={"time": 1})
    expected = cube.compute(scheduler="synchronous")
    with dask.config.set(scheduler="threads", num_workers=4):
        for _ in range(3):
            np.testing.assert_array_equal(cube.values, expected.values)


def test_slices_reach_the_files(archive, monkeypatch: pytest.MonkeyPatch) -> None:
    cube = open_cube(archive(list(range(10, 210, 10))))
    assert cube.chunks[0] == (16, 4)
    read = []
    whole = Frames._read
    monkeypatch.setattr(Frames, "_read", lambda s, f, t, w, n: read.append((f, n)) or whole(s, f, t, w, n))
    cube.isel(time=slice(5, 7), y=slice(1, 3), x=slice(0, 2)).compute(scheduler="synchronous")
    assert read == [(5, (1, 2, 2)), (6, (1, 2, 2))]


def test_distributed_processes_may_read(archive) -> None:
    distributed = pytest.importorskip("distributed")
    files = archive(list(range(10, 90, 10)))
    cube = open_cube(files, chunks={"time": 1})
    expected = cube.compute()
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0", memory_limit=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        np.testing.assert_array_equal(client.compute(cube).result().values, expected.values)
        files[3].unlink()
        with pytest.raises(InputError, match=files[3].name):
            client.compute(cube.sum()).result()


@pytest.mark.parametrize(
    ("shape", "stored", "wanted"),
    [
        ((100, 512, 512), (1, 512, 512), (4, 512, 512)),  # small frames together, about 4 MB
        ((100, 512, 512), None, (4, 512, 512)),
        ((100, 2200, 1900), (1, 380, 440), (1, 2200, 1900)),  # whole planes
        ((5, 20000, 20000), (1, 1000, 1000), (1, 1000, 1000)),  # too large a plane: stored chunks
        ((128, 89, 180), (512, 89, 180), (128, 89, 180)),  # a stored chunk larger than the data
        ((1000,), (16,), (1000,)),
    ],
)
def test_block_sizes(shape, stored, wanted) -> None:
    dims = ("time", "y", "x")[: len(shape)]
    chunks = block_sizes(dims, shape, stored=stored, itemsize=4, asked=None)
    assert tuple(c[0] for c in chunks) == wanted
    assert tuple(sum(c) for c in chunks) == shape


def test_few_files_a_block() -> None:
    chunks = block_sizes(("time", "y", "x"), (100, 8, 8), stored=None, itemsize=4, asked=None, frames_per_file=1)
    assert chunks[0][0] == 16
