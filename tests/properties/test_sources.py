"""Properties of reading: any index is NumPy's, packing is netCDF4's own, order keeps the first, chunks cover."""

import netCDF4
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cubecast.sources.blocks import Frames, Stored, block_sizes
from cubecast.sources.coding import Coding, cf_coding
from cubecast.sources.times import keep_order
from cubecast.sources.values import Limits


def _read(file, _name, key):
    return file[key], Coding()


@st.composite
def _indices(draw, size: int):
    """An integer, a slice or an array of indices of a dim."""
    if not size:
        return slice(None)
    number = st.integers(-size, size - 1)
    edge = st.none() | st.integers(-size - 2, size + 2)
    step = st.none() | st.integers(-3, 3).filter(bool)
    return draw(number | st.builds(slice, edge, edge, step) | st.lists(number, max_size=4).map(np.array))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_index_gives_what_numpy_gives(data) -> None:
    """Stored as (x, 1, time, y): the cube is (time, y, x)."""
    ny, nx = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    counts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    rng = np.random.default_rng(len(counts))
    files = [rng.random((nx, 1, n, ny)) for n in counts]
    pairs = [(i, j) for i, n in enumerate(counts) for j in range(n)]
    index = np.array(data.draw(st.permutations(pairs))).reshape(-1, 2)
    stored = Stored(_read, "v", (2, None, 0, 1), np.dtype(float), Limits(), "v")
    frames = Frames(stored, files, index=index, factor=None, space=(ny, nx))
    whole = np.stack([files[i][:, 0, j].T for i, j in index])
    keys = tuple(data.draw(_indices(n)) for n in whole.shape[: data.draw(st.integers(1, 3))])
    expected = whole
    for axis in reversed(range(len(keys))):  # one after the other: NumPy pairs several arrays of indices
        one = keys[axis]
        one = one.astype(int) if isinstance(one, np.ndarray) else one
        expected = expected[(slice(None),) * axis + (one,)]
        keys = (*keys[:axis], one, *keys[axis + 1 :])
    np.testing.assert_array_equal(frames[keys], expected)


# Numbers at random seldom meet a fill value: these do.
_EDGES = st.sampled_from([-32768, -32767, -1, 0, 1, 32766, 32767])


@settings(max_examples=60, deadline=None)
@given(
    stored=st.lists(_EDGES | st.integers(-32768, 32767), min_size=1, max_size=20),
    fill=st.none() | _EDGES | st.integers(-32768, 32767),
    sentinel=st.none() | _EDGES | st.integers(-32768, 32767),
    limits=st.none() | st.tuples(st.integers(-32768, 0), st.integers(1, 32767)),
    scale=st.none() | st.sampled_from([0.01, 0.5, 2.0]),
    offset=st.none() | st.sampled_from([-10.0, 273.15]),
    unsigned=st.booleans(),
)
def test_packing_is_that_of_the_netcdf_library(stored, fill, sentinel, limits, scale, offset, unsigned) -> None:
    with netCDF4.Dataset("memory", "w", diskless=True) as file:
        file.createDimension("n", len(stored))
        variable = file.createVariable("v", "i2", ("n",), fill_value=fill)
        attrs = {"scale_factor": scale, "add_offset": offset}
        if sentinel is not None:
            attrs["missing_value"] = np.int16(sentinel)
        if limits is not None and not unsigned:
            attrs["valid_range"] = np.array(limits, "i2")
        if unsigned:
            attrs["_Unsigned"] = "true"
        variable.setncatts({k: v for k, v in attrs.items() if v is not None})
        variable.set_auto_maskandscale(False)
        variable[:] = np.array(stored, "i2")
        raw = variable[:]
        values = cf_coding(variable.__dict__, variable.dtype).decode(raw, np.dtype(float))
        variable.set_auto_maskandscale(True)
        expected = np.ma.filled(variable[:].astype(float), np.nan)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@given(st.lists(st.integers(0, 6), max_size=12))
def test_order_is_increasing_and_keeps_the_first(values) -> None:
    sequence = np.array(values, dtype=int)
    keep = keep_order(sequence)
    assert sequence[keep].tolist() == sorted(set(values))
    assert all(values.index(sequence[i]) == i for i in keep)


@given(
    shape=st.tuples(st.integers(1, 300), st.integers(1, 4000), st.integers(1, 4000)),
    stored=st.none() | st.tuples(st.integers(1, 400), st.integers(1, 4000), st.integers(1, 4000)),
)
def test_chunks_cover_the_data_and_do_not_cut_stored_chunks(shape, stored) -> None:
    chunks = block_sizes(("time", "y", "x"), shape, stored=stored, itemsize=4, asked=None)
    for sizes, size, unit in zip(chunks, shape, stored or (1, *shape[1:]), strict=True):
        assert sum(sizes) == size
        assert len(sizes) == 1 or all(s % min(unit, size) == 0 for s in sizes[:-1])
