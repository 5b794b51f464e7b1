"""Where air comes from: exact where the motion is linear, the same in a window, wide windows for far ways."""

import math

import pytest
import torch

from cubecast.nn.box import Box
from cubecast.nn.trajectories import Trajectories


@pytest.mark.parametrize("spacing", [1, 4])
def test_the_air_keeps_its_motion(spacing):
    """Of a motion that is linear in space both ways are known: x = (1 + l A) X, and x - k A x."""
    size, steps = 33, 4
    linear = torch.tensor([[0.02, -0.05], [0.03, -0.01]], dtype=torch.float64)  # of (x, y), pixels a step and pixel
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(place, place, indexing="ij")
    place = torch.stack([x, y], dim=-1)
    paths = Trajectories((place @ linear.T).permute(2, 0, 1).flip(0)[None], spacing=spacing)
    inside = place.norm(dim=-1) < 0.7 * size / 2
    one = torch.eye(2, dtype=torch.float64)
    for lead, (came, was) in enumerate(zip(paths.arriving(steps), paths.passed(steps), strict=True), start=1):
        came, was = came.movedim(1, -1), was.movedim(1, -1)
        start = place @ torch.linalg.inv(one + lead * linear).T
        torch.testing.assert_close((place + came[0])[inside], start[inside], atol=2e-3, rtol=0)
        torch.testing.assert_close(was[0], -lead * place @ linear.T)


def test_a_window_has_the_ways_of_the_grid():
    motion = 3 * torch.randn(1, 2, 5, 6, generator=torch.Generator().manual_seed(3))
    paths = Trajectories(torch.nn.functional.interpolate(motion, (61, 80), mode="bilinear"))
    box = Box(13, 37, 20, 63)
    for name, reach in (("arriving", paths.reach_arriving), ("passed", paths.reach_passed)):
        whole, part = (list(getattr(paths, name)(3, b)) for b in (None, box))
        for all_of_it, some in zip(whole, part, strict=True):
            torch.testing.assert_close(some, all_of_it[:, :, *box.slices], atol=1e-5, rtol=0)
        held = reach(3, box)
        y, x = torch.meshgrid(torch.arange(13.0, 37.0), torch.arange(20.0, 63.0), indexing="ij")
        ends = torch.stack([torch.stack([x, y], dim=-1) + way[0].movedim(0, -1) for way in part]).flatten(0, 2)
        assert held.x0 <= max(0, ends[:, 0].min()) < held.x0 + 12
        assert held.y0 <= max(0, ends[:, 1].min())
        assert held.x1 >= min(80, ends[:, 0].max() + 1)
        assert held.y1 >= min(61, ends[:, 1].max() + 1)
    slow = Trajectories(torch.tensor([0.0, 8.0]).view(1, 2, 1, 1).expand(1, 2, 61, 80))
    assert slow.reach_arriving(3, Box(0, 9, 0, 9)) == Box(0, 9, 0, 25), "what comes in is mirrored at the edge"
    assert 43 <= slow.reach_arriving(3, Box(0, 9, 71, 80)).x0 <= 47
    wider, held = paths.reach_arriving(3, box, beside=0.5), paths.reach_arriving(3, box)
    assert wider.x0 < held.x0 or wider.x1 > held.x1


def test_far_ways_are_those_of_wide_windows() -> None:
    """Within 8 pixels the motion is 3, within 16 pixels 4, within 32 pixels 8: the way is that of 0.7 of its length."""
    motions = [
        (w, torch.tensor([0.0, u]).view(1, 2, 1, 1).expand(1, 2, 40, 40))
        for w, u in ((32.0, 8.0), (16.0, 4.0), (8.0, 3.0))
    ]
    paths = Trajectories(iter(motions))
    assert paths.speeds(Box(0, 3, 2, 7)).tolist() == [[[8.0] * 5] * 3]
    ways = [-float(moved[0, 0, 5, 5]) / lead for lead, moved in enumerate(paths.arriving(8), start=1)]
    assert ways[0] == pytest.approx(3.0), "5.6 pixels are less than the narrowest window"
    place = math.log2(0.7 * 2 * 8 / 8)
    assert ways[1] == pytest.approx(3 + place)
    assert ways[2] == pytest.approx(4 + 4 * (math.log2(0.7 * 3 * 8 / 8) - 1))
    assert ways[5:] == pytest.approx([8.0] * 3)
    (back,) = paths.passed(1)
    assert float(back[0, 0, 5, 5]) == -3.0, "the history is seen as it was"
