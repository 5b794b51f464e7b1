"""Motion from frames, where the true motion is known: errors in pixels a step."""

import numpy as np
import pytest
import torch

from cubecast.errors import UsageError
from cubecast.nn import motion as motion_module
from cubecast.nn.motion import estimate_motion, estimate_motions
from cubecast.sources.synthetic import Flow, generate_rain, motion


def logarithm(rain: np.ndarray) -> torch.Tensor:
    """Frames (1, time, 1, y, x) of rain rates (time, y, x)."""
    return torch.from_numpy(np.log(np.clip(rain, 0.1, 50) / 0.1).astype(np.float32))[None, :, None]


def shifted(v: int, u: int, *, frames: int = 6, size: int = 96, seed: int = 0) -> torch.Tensor:
    """One field that moves by whole pixels and does not change."""
    reach = (frames - 1) * max(abs(v), abs(u))
    whole = generate_rain(frames=1, size=(size + 2 * reach,) * 2, seed=seed, wet_fraction=0.4).values[0]
    starts = [(reach - v * t, reach - u * t) for t in range(frames)]
    return logarithm(np.stack([whole[y : y + size, x : x + size] for y, x in starts]))


def errors(estimate: torch.Tensor, v: float | np.ndarray, u: float | np.ndarray) -> np.ndarray:
    found = estimate[0].double().cpu().numpy()
    return np.hypot(found[0] - v, found[1] - u)


def generated(seed: int, minutes: float = 5.0, **settings: object) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Frames and their true motion (v, u) in pixels a step."""
    options = {"kind": "stratiform", "wet_fraction": 0.5, "flow": Flow(speed=7.0, turn=0.3)} | settings
    cube = generate_rain(frames=6, size=(192, 224), seed=seed, step_minutes=minutes, **options)
    u, v = motion(cube.isel(time=3))
    return logarithm(cube.values), v.values * minutes * 60 / 1000, u.values * minutes * 60 / 1000


@pytest.mark.parametrize(("v", "u"), [(0, 0), (1, -2), (-5, 3), (9, 12)])
def test_a_moving_field_has_its_motion(v, u, device):
    wrong = errors(estimate_motion(shifted(v, u).to(device)), v, u)
    assert wrong.mean() < 0.03 * np.hypot(v, u) + 0.01


def test_curved_motion_without_growth_and_decay():
    frames, v, u = generated(3, life_time=1e7, flow=Flow(speed=9.0, turn=0.5), wet_fraction=0.4)
    wrong = errors(estimate_motion(frames), v, u)
    assert np.hypot(v, u).std() > 0.4, "one motion for the whole field would not do"
    assert wrong.mean() < 0.2
    assert np.quantile(wrong, 0.95) < 0.5


def test_rain_that_grows_and_decays():
    """The generator's usual rain, 2.1 pixels a step on average: endpoint errors over seeds."""
    wrong = []
    for seed in range(4):
        frames, v, u = generated(seed)
        wrong.append(errors(estimate_motion(frames), v, u).mean())
    assert np.hypot(v, u).mean() > 2
    assert np.mean(wrong) < 0.35
    assert max(wrong) < 0.5


def test_more_frames_tell_more():
    frames, v, u = generated(1)
    two = errors(estimate_motion(frames[:, -2:]), v, u).mean()
    assert errors(estimate_motion(frames), v, u).mean() < 0.8 * two


def test_fast_rain():
    frames, v, u = generated(2, flow=Flow(speed=30.0, turn=0.1))
    assert np.hypot(v, u).mean() > 8
    assert errors(estimate_motion(frames), v, u).mean() < 0.6


def test_missing_values_do_not_count(device):
    frames = shifted(2, 3, seed=1).to(device)
    observed = torch.ones_like(frames, dtype=torch.bool)
    observed[..., :40, :50] = False
    observed[:, 2, ..., 70:, 70:] = False
    full, wild = estimate_motion(torch.where(observed, frames, 0.0), observed), torch.where(observed, frames, 99.0)
    torch.testing.assert_close(estimate_motion(wild, observed), full)
    assert errors(full, 2, 3).max() < 0.5, "places without data have the motion of their surroundings"
    assert errors(estimate_motion(torch.where(observed, frames, 0.0)), 2, 3).max() > 0.5, "a dry hole stands still"


def test_one_mask_of_all_frames_counts_as_one_of_each():
    """Two channels that are alike have the motion of one, and masks of their own in each frame."""
    frames = shifted(2, 3, seed=1)
    observed = torch.ones_like(frames, dtype=torch.bool)
    observed[..., :40, :50] = False
    twice = [f.repeat(1, 1, 2, 1, 1) for f in (frames, observed)]
    torch.testing.assert_close(estimate_motion(frames, observed), estimate_motion(*twice), rtol=0, atol=1e-4)


def test_dry_places_have_the_motion_of_their_surroundings():
    whole = np.zeros((120, 200))
    whole[20:90, 15:70] = generate_rain(frames=1, size=(70, 55), seed=0, wet_fraction=0.4).values[0]
    wrong = errors(estimate_motion(logarithm(np.stack([np.roll(whole, (t, 3 * t), (0, 1)) for t in range(6)]))), 1, 3)
    assert wrong[40:80, 40:70].mean() < 0.2
    assert wrong[:, 120:].mean() < 1


def test_clutter_hardly_moves_it():
    frames, v, u = generated(0)
    spikes = torch.from_numpy(np.random.default_rng(0).random(frames.shape[-2:]) < 0.005)
    clean = errors(estimate_motion(frames), v, u).mean()
    assert errors(estimate_motion(frames.masked_fill(spikes, float(np.log(500)))), v, u).mean() < 1.25 * clean


def test_nothing_to_see_is_no_motion():
    frames = torch.zeros(1, 4, 1, 40, 40, requires_grad=True)
    found = estimate_motion(frames)
    assert (found == 0).all()
    found.sum().backward()
    assert torch.isfinite(frames.grad).all()


@pytest.mark.parametrize("size", [(5, 7), (17, 64), (100, 31)])
def test_any_grid(size):
    frames = torch.rand(2, 3, 2, *size, generator=torch.Generator().manual_seed(0))
    found = estimate_motion(frames)
    assert found.shape == (2, 2, *size)
    assert torch.isfinite(found).all()


def test_samples_of_a_batch_are_on_their_own():
    one, other = shifted(2, 3), shifted(-4, 1, seed=5)
    both = estimate_motion(torch.cat([one, other]))
    torch.testing.assert_close(both[:1], estimate_motion(one), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[1:], estimate_motion(other), atol=1e-4, rtol=1e-4)
    assert torch.equal(both, estimate_motion(torch.cat([one, other])))


def test_gradients_are_those_of_differences():
    frames = shifted(1, 2, frames=3, size=24).double().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(1, 2, 24, 24, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad((weight * estimate_motion(frames)).sum(), frames)
    direction = torch.rand(frames.shape, dtype=torch.float64, generator=generator) - 0.5
    step = 1e-6
    with torch.no_grad():
        up, down = ((weight * estimate_motion(frames + s * direction)).sum() for s in (step, -step))
    assert gradient.abs().max() > 0
    assert float((gradient * direction).sum()) == pytest.approx(float(up - down) / (2 * step), rel=1e-4)


def test_half_precision_around_it_changes_nothing():
    frames = shifted(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = estimate_motion(frames)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, estimate_motion(frames))


def test_large_grids_are_halved_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [motion_module.finest_level(12.0, (n, 2 * n)) for n in (640, 2048, 2049, 3500, 8000)] == [0, 0, 1, 1, 2]
    assert motion_module.finest_level(60.0, (640, 640)) == 2
    frames = torch.from_numpy(np.log1p(generate_rain(frames=4, size=(128, 160), seed=2, wet_fraction=0.5).values))
    frames = frames[None, :, None]
    fine = estimate_motion(frames, window=12.0)
    monkeypatch.setattr(motion_module, "LARGEST", 64 * 80)
    coarse, one_by_one = estimate_motion(frames, window=12.0), motion_module.FrameByFrame(4, window=12.0)
    assert 0 < (coarse - fine).norm(dim=1).mean() < 0.15 * fine.norm(dim=1).mean()
    for frame in frames.unbind(1):
        one_by_one.add(frame[:, None])
    *_, (window, found) = one_by_one.motions()
    assert window == 12.0
    torch.testing.assert_close(found, coarse, atol=1e-5, rtol=1e-5)


def test_wider_windows_see_the_motion_of_wider_surroundings() -> None:
    """A field that shears: 1 pixel a step on the left, 3 on the right."""
    whole = generate_rain(frames=1, size=(128, 180), seed=4, wet_fraction=0.6).values[0]
    parts = [np.concatenate([np.roll(whole, t, 1)[:, :90], np.roll(whole, 3 * t, 1)[:, 90:]], axis=1) for t in range(4)]
    windows, motions = zip(*estimate_motions(logarithm(np.stack(parts)), window=12.0), strict=True)
    assert windows == (48.0, 24.0, 12.0)
    torch.testing.assert_close(motions[-1], estimate_motion(logarithm(np.stack(parts)), window=12.0))
    shear = [float(m[0, 1, :, 110].mean() - m[0, 1, :, 70].mean()) for m in motions]
    assert shear[0] < shear[1] - 0.3 < shear[2] - 0.6
    assert shear[2] == pytest.approx(2, abs=0.3)


def test_wrong_wishes_are_refused():
    with pytest.raises(UsageError, match="found 1; allowed: 2 or more"):
        estimate_motion(torch.zeros(1, 1, 1, 8, 8))
    with pytest.raises(UsageError, match="window of the motion: found"):
        estimate_motion(torch.zeros(1, 2, 1, 8, 8), window=0.5)
