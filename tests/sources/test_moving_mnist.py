"""Moving MNIST: digits that bounce, sequences with gaps between them, and IDX files."""

import gzip

import dask.array
import numpy as np
import pytest

from cubecast.cube import check_cube, cube_step, gaps
from cubecast.errors import InputError, UsageError
from cubecast.sources import moving_mnist as source
from cubecast.sources.moving_mnist import moving_mnist, read_idx_images
from cubecast.windows import find_windows

DOT = np.full((1, 4, 4), 255, np.uint8)
"""One digit: a bright square of 4 x 4 pixels."""


def corners(cube):
    """The (y, x) corner of the only bright square in every frame."""
    return np.array([np.argwhere(frame == 1).min(axis=0) for frame in cube.values])


def test_it_is_a_lazy_cube_with_a_gap_after_every_sequence():
    cube = check_cube(moving_mnist(digits=DOT, sequences=3, frames=5, size=16))
    assert isinstance(cube.data, dask.array.Array)
    assert cube.shape == (15, 16, 16)
    assert cube.dtype == cube.values.dtype == np.float32
    assert cube_step(cube).size == 1
    assert [missing for _, _, missing in gaps(cube)] == [5, 5]
    assert [w.start for w in find_windows(cube, length=4)] == [0, 1, 5, 6, 10, 11]


def test_two_frames_are_the_shortest_sequence():
    cube = moving_mnist(digits=DOT, sequences=4, frames=2, size=16)
    assert cube_step(cube).size == 1
    assert len(find_windows(cube, length=2)) == 4


def test_a_digit_goes_straight_on_and_is_reflected_at_the_walls():
    room = 200
    cube = moving_mnist(digits=DOT, sequences=1, frames=60, size=room + 4, digits_per_frame=1, seed=1)
    place = corners(cube)
    assert place.min() == 0
    assert place.max() == room
    step = np.diff(place, axis=0)
    inside = ((place[:-1] > 0) & (place[:-1] < room) & (place[1:] > 0) & (place[1:] < room)).all(axis=1)
    speed = np.hypot(*step[inside].T)
    assert inside.sum() > 30
    np.testing.assert_allclose(speed, 0.1 * room, atol=1.5)
    # Between walls only the signs of the two velocities change.
    assert np.ptp(np.abs(step[inside]), axis=0).max() <= 1
    assert (np.ptp(np.sign(step[inside]), axis=0) == 2).all()


def test_overlapping_digits_show_the_brighter_pixel():
    grey = np.full((1, 6, 6), 0.4)
    frames = moving_mnist(digits=grey, sequences=20, frames=4, size=8, digits_per_frame=5).values
    assert set(np.unique(frames)) == {np.float32(0), np.float32(0.4)}
    both = np.stack([grey[0], np.full((6, 6), 0.9)])
    assert moving_mnist(digits=both, sequences=20, frames=4, size=8).values.max() == np.float32(0.9)


def test_all_digits_are_used():
    levels = np.linspace(0.1, 1, 10)
    digits = np.ones((10, 3, 3)) * levels[:, None, None]
    seen = moving_mnist(digits=digits, sequences=80, frames=2, size=12).values
    np.testing.assert_allclose(np.unique(seen), [0, *levels], rtol=1e-6)


def test_a_sequence_depends_on_seed_and_number_alone(monkeypatch):
    few = moving_mnist(digits=DOT, sequences=5, frames=6, size=20, seed=3).values
    again = moving_mnist(digits=DOT, sequences=5, frames=6, size=20, seed=3).values
    np.testing.assert_array_equal(few, again)
    monkeypatch.setattr(source, "BLOCK", 2)
    more = moving_mnist(digits=DOT, sequences=9, frames=6, size=20, seed=3)
    assert more.chunks[0] == (12, 12, 12, 12, 6)
    np.testing.assert_array_equal(more[:30].values, few)
    assert (moving_mnist(digits=DOT, sequences=5, frames=6, size=20, seed=4).values != few).any()
    sequences = few.reshape(5, -1)
    assert len(np.unique(sequences, axis=0)) == 5


def test_ten_thousand_sequences_are_made_on_demand():
    cube = moving_mnist(digits=DOT, sequences=10_000)
    assert cube.nbytes > 3e9
    assert max(cube.chunks[0]) == 32 * 20
    assert cube[-20:].values.max() == 1


@pytest.mark.parametrize("wrong", [{"sequences": 0}, {"frames": 1}, {"size": 3}, {"digits_per_frame": 0}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}: found"):
        moving_mnist(**{"digits": DOT, "sequences": 1} | wrong)


@pytest.mark.parametrize("digits", [DOT[0], DOT.astype(float), np.full((1, 2, 2), np.nan), np.zeros((0, 2, 2))])
def test_digits_that_are_no_images_are_refused(digits):
    with pytest.raises(UsageError, match="digits: found"):
        moving_mnist(digits=digits, sequences=1)


IMAGES = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
IDX = np.array([0x803, *IMAGES.shape], ">i4").tobytes() + IMAGES.tobytes()


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_idx_images_packed_and_unpacked(tmp_path, pack):
    path = tmp_path / "images"
    path.write_bytes(pack(IDX))
    np.testing.assert_array_equal(read_idx_images(path), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "found first four bytes none"),
        (b"hello world", "found first four bytes 68 65 6c 6c"),
        (gzip.compress(np.array([0x801, 2], ">i4").tobytes()), "not that of labels"),
        (gzip.compress(IDX)[:-9], "truncated gzip file"),
        (b"\x1f\x8b" + b"nonsense", "allowed: a readable gzip"),
        (gzip.compress(IDX[:-1]), "found 45 bytes; allowed: 46 for 2 images of 3 x 5"),
        (IDX[:9], "found 9 bytes"),
    ],
    # gzip writes the time into its header: bytes as names would differ between the workers of a test run.
    ids=["absent", "empty", "text", "labels", "cut gzip", "no gzip", "one pixel short", "cut header"],
)
def test_broken_idx_files_are_refused(tmp_path, content, message):
    path = tmp_path / "images.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx_images(path)


def test_real_digits(real_data):
    path = real_data / "mnist/t10k-images-idx3-ubyte.gz"
    assert read_idx_images(path).shape == (10000, 28, 28)
    cube = moving_mnist(digits=str(path), sequences=40)
    frames = cube.values
    assert frames.shape == (800, 64, 64)
    assert frames.min() == 0
    assert frames.max() == 1
    # Two digits of about 100 bright pixels each.
    assert 0.02 < (frames > 0.5).mean() < 0.08
