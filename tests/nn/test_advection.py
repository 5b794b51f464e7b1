"""Semi-Lagrangian advection: exact where it must be, and honest about what is missing."""

import pytest
import torch

from cubecast.errors import UsageError
from cubecast.nn.advection import advect, interpolate, trajectories


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
