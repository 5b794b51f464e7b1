"""Semi-Lagrangian advection: exact where it must be, and honest about what is missing."""

import math

import pytest
import torch

from cubecast.errors import UsageError
from cubecast.nn.advection import Trajectories, advect, interpolate, trajectories
from cubecast.nn.box import Box


def uniform(size: tuple[int, int], v: float, u: float, **kind: object) -> torch.Tensor:
    return torch.tensor([v, u], **kind).view(1, 2, 1, 1).expand(1, 2, *size).contiguous()


def test_whole_pixels_shift_the_array(device):
    field = torch.rand(2, 3, 20, 30, generator=torch.Generator().manual_seed(0)).to(device)
    values, seen = advect(field, uniform((20, 30), 2.0, -3.0, device=device).expand(2, -1, -1, -1), 3)
    for lead in (1, 2, 3):
        y, x = 2 * lead, 3 * lead
        torch.testing.assert_close(values[:, lead - 1, :, y:, : 30 - x], field[:, :, : 20 - y, x:], atol=1e-4, rtol=0)
        there = torch.zeros_like(seen[:, 0])
        there[:, :, y:, : 30 - x] = True
        assert (seen[:, lead - 1] == there).all(), "what comes from outside is missing, all else is not"
    assert (values[~seen] == 0).all()


def test_a_ramp_is_carried_exactly():
    ramp = torch.arange(24.0, dtype=torch.float64).view(1, 1, 1, 24).expand(1, 1, 16, 24)
    values, seen = advect(ramp, uniform((16, 24), 0.0, 0.3, dtype=torch.float64), 4)
    expected = ramp[:, None] - 0.3 * torch.arange(1.0, 5.0, dtype=torch.float64).view(1, 4, 1, 1, 1)
    inside = seen & (expected > 0)
    assert inside.sum() == 16 * (23 + 23 + 23 + 22)
    torch.testing.assert_close(values[inside], expected.expand_as(values)[inside])


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
    wider, held = paths.reach_arriving(3, box, beside=0.5), paths.reach_arriving(3, box)
    assert wider.x0 < held.x0 or wider.x1 > held.x1


def test_missing_values_are_carried_and_never_leak():
    field = torch.full((1, 1, 12, 12), 5.0)
    observed = torch.ones(1, 1, 12, 12, dtype=torch.bool)
    observed[..., 4:8, 4:8] = False
    field[..., 4:8, 4:8] = 1e6
    values, seen = advect(field, uniform((12, 12), 0.25, 1.0), 2, observed=observed)
    torch.testing.assert_close(values[seen], torch.full_like(values[seen], 5.0))
    assert (~seen[0, 0, 0, 4:8, 5:9]).all()
    assert (~seen[0, 1, 0, 5:8, 6:10]).all()
    assert seen[0, 1, 0, :4, 2:].all()


def test_each_frame_has_its_own_points():
    frames = torch.rand(1, 3, 2, 10, 10, generator=torch.Generator().manual_seed(1))
    points = trajectories(uniform((10, 10), 1.0, 0.0), 3)
    values, _ = interpolate(frames, points)
    for step in range(3):
        torch.testing.assert_close(values[:, step, :, step + 1 :], frames[:, step, :, : 9 - step], atol=1e-5, rtol=0)


def test_gradients_in_field_and_motion():
    generator = torch.Generator().manual_seed(2)
    field = torch.rand(1, 1, 6, 7, dtype=torch.float64, generator=generator).requires_grad_()
    motion = (0.37 + 0.1 * torch.rand(1, 2, 6, 7, dtype=torch.float64, generator=generator)).requires_grad_()
    assert torch.autograd.gradcheck(lambda f, m: advect(f, m, 2)[0], (field, motion))


def test_wrong_wishes_are_refused():
    motion = uniform((8, 8), 0.0, 0.0)
    for wrong in ({"steps": 0}, {"steps": 1, "spacing": 0}):
        with pytest.raises(UsageError, match="found 0; allowed: 1 or more"):
            trajectories(motion, **wrong)


def test_far_ways_are_those_of_wide_windows() -> None:
    """Within 8 pixels the motion is 3, within 16 pixels 4, within 32 pixels 8: the way is that of 0.7 of its length."""
    motions = [(w, uniform((40, 40), 0.0, u)) for w, u in ((32.0, 8.0), (16.0, 4.0), (8.0, 3.0))]
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
