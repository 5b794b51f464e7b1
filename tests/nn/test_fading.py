"""What is kept of the last fields: growth goes on as it did, and air that may be astray smooths what it carries."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cubecast.nn.bands import split_bands
from cubecast.nn.fading import ON, WAVE, Fading
from cubecast.nn.layout import Layout

SIDE, LEADS = 96, 6


def textured() -> Tensor:
    """(y, x), positive, with structure of 8 pixels and more."""
    noise = torch.randn(1, 1, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(3))
    return 4 + F.interpolate(noise, size=(SIDE, SIDE), mode="bicubic")[0, 0]


def history(growth: list[float]) -> Tensor:
    """(1, time, 1, y, x): fields that grow by so much a step, up to the last, which is `textured`."""
    factors = [1.0]
    for step in reversed(growth):
        factors.insert(0, factors[0] - step)
    return textured() * torch.tensor(factors).view(1, -1, 1, 1, 1)


def leads(fading: Fading, frames: Tensor, *, h: float = 0.0, astray: Callable[[int], Tensor] | None = None) -> Tensor:
    """(batch, lead, output, y, x), the network saying nothing but h."""
    said = torch.zeros(LEADS, 1, 1 + fading.fields, *frames.shape[-2:])
    said[:, :, 1 + fading.bands] = h
    return torch.stack(list(fading(fading.keep(frames, said, astray))), dim=1).detach()


def test_growth_goes_on_and_ends() -> None:
    """A growth of 0.05 a step that was steady goes on with 1, `ON`, `ON`^2 ... of it; no band fades."""
    fading = Fading(Layout(1, 1, masks=False), 4)
    torch.nn.init.constant_(fading.pace, -20.0)
    found = leads(fading, history([0.05] * 5))[0, :, 0]
    grown = 0.05 * torch.tensor([(1 - ON**lead) / (1 - ON) for lead in range(1, LEADS + 1)])
    torch.testing.assert_close(found, textured() * (1 + grown)[:, None, None], rtol=2e-3, atol=2e-3)


def test_changes_that_come_and_go_do_not_go_on() -> None:
    fading = Fading(Layout(1, 1, masks=False), 4)
    torch.nn.init.constant_(fading.pace, -20.0)
    found = leads(fading, history([0.05, -0.05, 0.05, -0.05, 0.05])).detach()
    torch.testing.assert_close(found, textured().expand_as(found), rtol=2e-3, atol=2e-3)


def test_the_network_says_how_much_of_a_change_goes_on() -> None:
    fading = Fading(Layout(1, 1, masks=False), 4)
    torch.nn.init.constant_(fading.pace, -20.0)
    found = leads(fading, history([0.05] * 5), h=-30.0)
    torch.testing.assert_close(found, textured().expand_as(found), rtol=2e-3, atol=2e-3)


def test_a_pixel_that_was_not_seen_before_does_not_grow() -> None:
    fields = history([0.05] * 5)
    masks = torch.ones_like(fields)
    masks[:, :-1, :, :, :48] = 0
    frames = torch.cat([torch.where(masks > 0.5, fields, 0.0), masks], dim=2)
    fading = Fading(Layout(2, 1, masks=True), 4)
    torch.nn.init.constant_(fading.pace, -20.0)
    found = leads(fading, frames)[0, -1, 0]
    torch.testing.assert_close(found[:, :30], textured()[:, :30], rtol=1e-3, atol=1e-3)
    assert (found / textured())[:, 66:].min() > 1.05


def test_a_pixel_that_was_never_seen_is_like_what_is_around() -> None:
    """Nothing is known of it, so there is no growth; without the mask it would be dry."""
    fields = textured().expand(1, 6, 1, -1, -1)
    masks = torch.ones_like(fields)
    masks[..., :48] = 0
    frames = torch.cat([fields * masks, masks], dim=2)
    found = leads(Fading(Layout(2, 1, masks=True), 4), frames)[0, :, 0]
    torch.testing.assert_close(found[..., 8:40], torch.full_like(found[..., 8:40], 4.0), rtol=0.15, atol=0.0)
    torch.testing.assert_close(found[..., 66:], textured()[:, 66:].expand_as(found[..., 66:]), rtol=0.02, atol=0.0)


def test_air_that_is_far_astray_leaves_the_mean_of_the_field() -> None:
    """Each band by its own scale, however far, but for the coarsest."""
    fading = Fading(Layout(1, 1, masks=False), 6)
    torch.nn.init.constant_(fading.pace, -20.0)
    found = leads(
        fading,
        textured().expand(1, 3, 1, -1, -1).contiguous(),
        astray=lambda lead: torch.full((1, 1, SIDE, SIDE), 25.0),
    )
    parts = split_bands(textured().expand(1, 1, 1, -1, -1), 6)[0, 0]
    left = torch.tensor([math.exp(-((25 / (WAVE * 2**s)) ** 2) / 2) for s in range(5)] + [1.0])
    expected = (left[:, None, None] * parts).sum(dim=0)
    torch.testing.assert_close(found[0, 0, 0], expected, rtol=0, atol=2e-3)


def test_the_network_is_not_heard_of_what_was_never_seen() -> None:
    fields, far = textured().expand(1, 6, 1, -1, -1), slice(66, None)
    masks = torch.ones_like(fields)
    masks[..., :48] = 0
    frames, fading = torch.cat([fields * masks, masks], dim=2), Fading(Layout(2, 1, masks=True), 4)
    silent, loud = (torch.full((LEADS, 1, 1 + fading.fields, SIDE, SIDE), word) for word in (0.0, 0.5))
    without, heard = (torch.stack(list(fading(fading.keep(frames, said))), dim=1) for said in (silent, loud))
    assert torch.equal(heard[..., :44], without[..., :44])
    assert (heard - without)[..., far].min() > 0.2


def test_air_that_may_be_astray_smooths_bands_of_its_scale() -> None:
    fading = Fading(Layout(1, 1, masks=False), 5)
    torch.nn.init.constant_(fading.pace, -20.0)
    wave = 1 + 0.5 * torch.sin(2 * math.pi * torch.arange(SIDE) / 12)
    frames = wave.expand(1, 3, 1, SIDE, SIDE).contiguous()
    ways = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]
    found = leads(fading, frames, astray=lambda lead: torch.full((1, 1, SIDE, SIDE), ways[lead - 1]))
    found = found[0, :, 0, 24:-24, 24:-24]
    left = found.std(dim=(1, 2)) / found[0].std()
    exact = [math.exp(-((2 * math.pi / 12 * s) ** 2) / 2) for s in ways]
    assert left.tolist() == pytest.approx(exact, abs=0.2)
    assert found.mean(dim=(1, 2)).tolist() == pytest.approx([1.0] * LEADS, abs=0.03)
