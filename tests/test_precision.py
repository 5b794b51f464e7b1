"""Which precision is chosen for training and for forecasts, on which hardware."""

import logging

import pytest
import torch

from cubecast.errors import UsageError
from cubecast.precision import choose_autocast, has_bf16, repeatable

CPU, CUDA, BF16 = torch.device("cpu"), torch.device("cuda"), torch.bfloat16


@pytest.fixture(params=[True, False], ids=["with bf16", "without bf16"])
def hardware(request, monkeypatch):
    """A CPU that multiplies bf16, or not."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_bf16": request.param})
    return request.param


def test_auto_is_bf16_where_the_hardware_has_it(hardware):
    assert has_bf16(CPU) == hardware
    assert choose_autocast("auto", CPU) is (BF16 if hardware else None)
    assert choose_autocast("auto", CUDA) is BF16
    for device in (CPU, CUDA):
        assert choose_autocast("fp32", device) is None
        assert choose_autocast("bf16", device) is BF16


def test_bf16_without_hardware_for_it_works_and_says_so(hardware, caplog):
    with caplog.at_level(logging.WARNING):
        assert choose_autocast("bf16", CPU) is BF16
    assert ["may be slower" in r.message for r in caplog.records] == ([] if hardware else [True])


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_other_precisions_are_refused(device):
    with pytest.raises(UsageError, match="precision: found 'fp16'; allowed: auto, fp32, bf16"):
        choose_autocast("fp16", device)


def test_a_repeatable_block_holds_for_itself_alone():
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    with repeatable(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
    with repeatable(False):
        assert torch.are_deterministic_algorithms_enabled() == before[0]
