"""Forecasts of parts of a grid: the receptive field is what it says, and a part is what the whole has there."""

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from cubecast.config import ModelConfig
from cubecast.errors import UsageError
from cubecast.nn import build_network, motion
from cubecast.nn.box import Box
from cubecast.nn.members import draw_noise
from cubecast.nn.motion import FrameByFrame, estimate_motion, estimate_motions
from cubecast.nn.parts import Parts
from cubecast.nn.parts import near as near_part
from cubecast.sources.synthetic import generate_rain

HISTORY, HORIZON = 3, 2
NETWORKS = [
    {"hidden_channels": [3, 4], "patch": 2},
    {"hidden_channels": [3, 4], "patch": 1, "strides": [2, 3], "kernel_size": 5},
    {"hidden_channels": [3], "patch": 4},
    {"hidden_channels": [3], "patch": 2, "cell": "conv_gru"},
    {"hidden_channels": [3], "patch": 2, "cell": "conv_gru", "reset": "before"},
    {"hidden_channels": [3], "patch": 1, "cell": "lstm"},
]


def network(settings: dict, **more: object) -> torch.nn.Module:
    """With weights that let everything through."""
    torch.manual_seed(0)
    made = build_network(ModelConfig.model_validate({**settings, **more}), in_channels=2, out_channels=1)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


@cache
def rain(size: tuple[int, int]) -> torch.Tensor:
    """(1, HISTORY, 2, y, x): logarithms of generated rain, and where it was observed."""
    values = generate_rain(frames=HISTORY, size=size, seed=3, wet_fraction=0.5).values
    observed = np.ones_like(values)
    observed[1:, 30:50, 20:60] = 0
    return torch.from_numpy(np.stack([np.log1p(values) * observed, observed], axis=1)[None].astype(np.float32))


@pytest.mark.parametrize("settings", NETWORKS, ids=str)
def test_the_receptive_field_is_reached_and_not_passed(settings: dict) -> None:
    net = network(settings, residual=False).double()
    field, multiple = net.receptive_field(HISTORY, HORIZON), getattr(net, "multiple", 1)
    side, seen = 2 * field + 4 * multiple, 0
    for offset in {0, multiple - 1}:
        frames = torch.rand(1, HISTORY, 2, side, side, dtype=torch.float64, requires_grad=True)
        middle = side // 2 + offset
        (gradient,) = torch.autograd.grad(net(frames, HORIZON)[0, -1, 0, middle, middle], frames)
        touched = torch.nonzero(gradient.abs().amax(dim=(0, 1, 2)))
        assert touched.amin() > 0, "the grid is too small to see it"
        assert touched.amax() < side - 1
        seen = max(seen, int((touched - middle).abs().max()))
    assert field - 2 * multiple <= seen <= field


@pytest.mark.parametrize(
    ("settings", "coordinates"),
    [
        (NETWORKS[0], "eulerian"),
        (NETWORKS[1], "lagrangian"),
        (NETWORKS[4], "lagrangian"),
        ({**NETWORKS[0], "noise_channels": 2}, "lagrangian"),
        ({**NETWORKS[0], "noise_channels": 2}, "eulerian"),
        ({"hidden_channels": [3], "patch": 1, "bands": 4}, "lagrangian"),
        ({"hidden_channels": [3], "patch": 2, "bands": 4, "noise_channels": 2, "renewal": True}, "lagrangian"),
        ({"hidden_channels": [3], "patch": 2, "bands": 6, "renewal": True}, "eulerian"),
        ({"hidden_channels": [3], "patch": 1, "bands": 3, "renewal": True, "motion_window": 8}, "lagrangian"),
    ],
    ids=str,
)
def test_parts_are_what_the_whole_has_there(settings: dict, coordinates: str) -> None:
    net, frames = network(settings, coordinates=coordinates), rain((131, 150))
    noise = draw_noise(net, frames, HORIZON, members=2, seed=5)
    given = () if noise is None else (noise,)
    parts = Parts(net, (131, 150), history=HISTORY, horizon=HORIZON, steady=noise is None)
    with torch.no_grad():
        whole = net(frames, HORIZON, *given)
        paths = parts.follow((frames[:, i : i + 1, :1], frames[:, i : i + 1, 1:] > 0.5) for i in range(HISTORY))
        assert (paths is None) == (coordinates == "eulerian")
        for rows, columns in product([(0, 40), (37, 80), (91, 131)], [(0, 33), (70, 150)]):
            windows = parts.windows(Box(*rows, *columns), paths)
            near = frames[..., *windows.read.slices]
            corner = (windows.here.y0, windows.here.x0)
            like = frames[..., *windows.here.slices]
            own = draw_noise(net, like, HORIZON, members=2, seed=5, corner=corner)
            found = parts.forecast(near, windows, paths, own)
            torch.testing.assert_close(found, whole[..., slice(*rows), slice(*columns)], atol=5e-5, rtol=2e-5)


@pytest.mark.parametrize(("field", "halo"), [(167, 167), (368, 192), (1000, 500)])
def test_near_is_never_more_than_the_field_nor_less_than_half_of_it(field: int, halo: int) -> None:
    assert near_part(field) == halo


def test_a_smaller_halo_is_not_the_same() -> None:
    net, frames = network(NETWORKS[0]), rain((131, 150))
    errors = []
    for halo in (None, 16, 8, 0):
        parts = Parts(net, (131, 150), history=HISTORY, horizon=HORIZON, halo=halo)
        windows = parts.windows(box := Box(60, 90, 60, 100), None)
        with torch.no_grad():
            found = parts.forecast(frames[..., *windows.read.slices], windows, None)
            errors.append(float((found - net(frames, HORIZON)[..., *box.slices]).abs().max()))
    assert errors[0] < 1e-5
    assert errors[0] < errors[1] < errors[2] < errors[3]


def test_motion_does_not_depend_on_how_frames_come_and_in_which_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = rain((131, 150))
    values, observed = frames[:, :, :1], frames[:, :, 1:] > 0.5
    whole = estimate_motion(values, observed)
    one_by_one = FrameByFrame(HISTORY)
    for i in range(HISTORY):
        one_by_one.add(values[:, i : i + 1], observed[:, i : i + 1])
    for one, (window, other) in zip(one_by_one.motions(), estimate_motions(values, observed), strict=True):
        assert one[0] == window
        torch.testing.assert_close(one[1], other, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(motion, "BAND", 2000)
    torch.testing.assert_close(estimate_motion(values, observed), whole, atol=1e-4, rtol=1e-4)


def test_noise_of_a_window_is_that_of_the_grid_there() -> None:
    net = network({**NETWORKS[0], "noise_channels": 2})
    frames = torch.zeros(1, HISTORY, 2, 320, 200)
    whole = draw_noise(net, frames, HORIZON, members=3, seed=1)
    assert whole is not None
    part = draw_noise(net, frames[..., 40:240, 68:], HORIZON, members=2, seed=1, corner=(40, 68))
    torch.testing.assert_close(part, whole[:2, ..., 20:120, 34:], rtol=0, atol=0)
    assert abs(float(whole.mean())) < 0.02
    assert float(whole.std()) == pytest.approx(1, abs=0.02)
    blocks = whole[..., :32, :32].flatten(), whole[..., 32:64, :32].flatten()
    assert abs(float(torch.corrcoef(torch.stack(blocks))[0, 1])) < 0.05


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"peephole": "pixel", "grid": [24, 24]}, "per-pixel peepholes"), ({"cell": "traj_gru"}, "cell traj_gru")],
)
def test_networks_whose_parts_need_the_whole_are_refused(settings: dict[str, Any], said: str) -> None:
    net = network({"hidden_channels": [3], **settings})
    with pytest.raises(UsageError, match=f"found {said}"):
        Parts(net, (24, 24), history=HISTORY, horizon=HORIZON)
