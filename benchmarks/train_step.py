"""Speed and memory of the fused engine beside a plain PyTorch ConvLSTM and those of others, with the same weights.

All candidates run in turn, for several rounds; the table has ratios of medians with the smallest and the largest ratio
of a round. With ``--cell conv_gru`` the plain one is the reference engine.
Run: python benchmarks/train_step.py [--quick] [--threads 1 --clock cpu on a shared machine]
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peers import MlcastGRU, Plain, TorchGeo, available
from timing import machine, ratio, resident, rounds, write
from torch import Tensor, nn

from cubecast.nn import ConvGRUCell, ConvLSTMCell, RecurrentLayer, choose_engine

CELLS = {"conv_lstm": ConvLSTMCell, "conv_gru": ConvGRUCell}


class Stack(nn.Module):
    """The same with `RecurrentLayer`."""

    def __init__(
        self, channels: int, hidden: int, depth: int, *, cell: Any = ConvLSTMCell, recompute: bool = False
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            RecurrentLayer(cell(hidden if i else channels, hidden), engine="fused", recompute=recompute)
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """All steps."""
        for layer in self.layers:
            x, _ = layer(x, x.shape[1])
        return x


class RollOut(nn.Module):
    """As OpenSTL runs its ConvLSTM: one step of all layers at a time, and each predicted frame is fed back."""

    def __init__(self, stack: nn.Module, hidden: int, channels: int) -> None:
        super().__init__()
        self.stack = stack
        torch.manual_seed(1)
        self.head = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Forecasts after each of ``time`` frames seen and ``time - 1`` frames fed back."""
        frames, frame, states = [], x[:, 0], None
        for t in range(2 * x.shape[1] - 1):
            top, states = self._step(x[:, t] if t < x.shape[1] else frame, states)
            frame = self.head(top).to(x.dtype)
            frames.append(frame)
        return torch.stack(frames, dim=1)

    def _step(self, x: Tensor, states: Any) -> tuple[Tensor, Any]:
        if isinstance(self.stack, Plain):
            if states is None:
                zeros = x.new_zeros(x.shape[0], self.head.weight.shape[1], *x.shape[2:])
                states = [(zeros, zeros) for _ in self.stack.convs]
            return self.stack.step(x, states), states
        after, sequence = [], x[:, None]
        for index, layer in enumerate(self.stack.layers):
            sequence, state = layer(sequence, 1, None if states is None else states[index])
            after.append(state)
        return sequence[:, 0], after


def convolutions(plain: Plain, x: Tensor, dtype: torch.dtype) -> Callable[[], None]:
    """The convolutions of a training step alone, channels-last: forward, input and weight gradients, no gates."""
    order = torch.channels_last
    weights = [c.weight.detach().to(dtype, memory_format=order) for c in plain.convs]
    batch, steps, _, *space = x.shape

    def fields(channels: int) -> Tensor:
        return torch.randn(batch, channels, *space, device=x.device).to(dtype, memory_format=order)

    inputs, above = [fields(w.shape[1]) for w in weights], [fields(w.shape[0]) for w in weights]

    def run() -> None:
        for index, (weight, xh, d) in enumerate(zip(weights, inputs, above, strict=True)):
            of_hidden = weight if index else weight[:, -weight.shape[0] // 4 :].contiguous(memory_format=order)
            for _ in range(steps):
                torch.conv2d(xh, weight, padding=1)
                torch.ops.aten.convolution_backward(
                    d, xh[:, -of_hidden.shape[1] :], of_hidden, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
                    [True, False, False],
                )  # fmt: skip
                torch.ops.aten.convolution_backward(
                    d, xh, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
                )  # fmt: skip

    return run


def training(module: nn.Module, x: Tensor, dtype: torch.dtype | None) -> Callable[[], None]:
    """Forward and backward pass of a mean square."""

    def run() -> None:
        module.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, dtype, enabled=dtype is not None):
            result = module(x)
        result.float().square().mean().backward()

    return run


def inference(module: nn.Module, x: Tensor, dtype: torch.dtype | None) -> Callable[[], None]:
    """Forward pass without gradients."""

    def run() -> None:
        with torch.no_grad(), torch.autocast(x.device.type, dtype, enabled=dtype is not None):
            module(x)

    return run


def agree(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    """Refuse to compare two modules that do not compute the same, gradients included (peers stack gates otherwise)."""
    found = []
    for module in (one, other):
        x = x.detach().requires_grad_()
        result = module(x)
        of_input, *of_weights = torch.autograd.grad(result.square().mean(), [x, *module.parameters()])
        norm = sum(g.square().sum() for g in of_weights) ** 0.5
        found.append((result.detach(), of_input / of_input.abs().max(), norm))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def twins(options: argparse.Namespace, *, recompute: bool = False) -> tuple[nn.Module, Stack]:
    """The plain stack and the fused one, with the same weights."""
    cell = CELLS[options.cell]
    fused = Stack(options.channels, options.hidden, options.layers, cell=cell, recompute=recompute).to(options.device)
    if options.cell == "conv_lstm":
        return Plain(fused.layers).to(options.device), fused
    plain = copy.deepcopy(fused)
    choose_engine(plain, "reference")
    return plain, fused


def matmul_peak(dtype: torch.dtype, options: argparse.Namespace) -> float:
    """GFLOP/s of a large matrix product."""
    a = torch.randn(1536, 1536, device=options.device).to(dtype)
    taken = rounds({"matmul": lambda: a @ a}, count=9, clock=options.clock, device=options.device)["matmul"]
    return 2 * 1536**3 / min(taken) / 1e9


def memory(options: argparse.Namespace) -> dict[str, float]:
    """MB that a training step takes at its peak, in a process of its own that has run a tiny one."""
    found = {}
    for which in ("plain", "fused", "recompute", "plain bf16", "fused bf16", "recompute bf16"):
        command = [sys.executable, __file__, "--memory", which, "--device", "cpu", "--threads", str(options.threads)]
        for name in ("cell", "batch", "frames", "side", "hidden", "layers", "channels"):
            command += [f"--{name}", str(getattr(options, name))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[which] = float(done.stdout.split()[-1])
    return found


def measure_memory(options: argparse.Namespace) -> None:
    """Print the peak of one training step above the memory before it, in MB."""
    which, _, precision = options.memory.partition(" ")
    dtype = torch.bfloat16 if precision else None
    plain, fused = twins(options, recompute=which == "recompute")
    module = plain if which == "plain" else fused
    x = torch.randn(options.batch, options.frames, options.channels, options.side, options.side)
    training(module, x[:, :2, :, :8, :8], dtype)()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # Linux: forget the peak, which compiling made
    before = resident("VmRSS")
    training(module, x, dtype)()
    print((resident("VmHWM") - before) / 1024)


def measure(options: argparse.Namespace) -> None:
    """All rows."""
    x = torch.randn(options.batch, options.frames, options.channels, options.side, options.side, device=options.device)
    plain, fused = twins(options)
    gru = Stack(options.channels, options.hidden, options.layers, cell=partial(ConvGRUCell, reset="before"))
    gru = gru.to(options.device)
    loops = [RollOut(m, options.hidden, options.channels).to(options.device) for m in (plain, fused)]
    small = x[:, :3, :, :16, :16]
    agree(plain, fused, small)
    agree(*loops, small)
    lstm = isinstance(plain, Plain)
    others = available({"torchgeo": TorchGeo}, fused.layers) if lstm else {}
    others_gru = available({"mlcast ConvGRU": MlcastGRU}, gru.layers) if lstm else {}
    for module, ours in [(m, fused) for m in others.values()] + [(m, gru) for m in others_gru.values()]:
        agree(module.to(options.device), ours, small)
    half = torch.bfloat16
    candidates = {
        "plain fp32": training(plain, x, None),
        "fused fp32": training(fused, x, None),
        "plain bf16": training(plain, x, half),
        "fused bf16": training(fused, x, half),
        "roll-out plain fp32": training(loops[0], x, None),
        "roll-out fused fp32": training(loops[1], x, None),
        "inference plain fp32": inference(plain, x, None),
        "inference plain bf16": inference(plain, x, half),
        "inference fused bf16": inference(fused, x, half),
    }
    if lstm:
        candidates["convolutions fp32"] = convolutions(plain, x, torch.float32)
        candidates["convolutions bf16"] = convolutions(plain, x, half)
    if others_gru:
        candidates |= {"ConvGRU fused fp32": training(gru, x, None), "ConvGRU fused bf16": training(gru, x, half)}
    for name, module in {**others, **others_gru}.items():
        candidates |= {f"{name} fp32": training(module, x, None), f"{name} bf16": training(module, x, half)}
    seconds = rounds(candidates, count=options.rounds, clock=options.clock, device=options.device)
    peaks = {name: matmul_peak(dtype, options) for name, dtype in (("fp32", torch.float32), ("bf16", half))}
    used = memory(options) if options.device == "cpu" else {}
    report(options, seconds, peaks, used)


ROWS = [
    ("train fp32: plain fp32 / fused", "plain fp32", "fused fp32", "1.3"),
    ("train fp32, roll-out: plain / fused", "roll-out plain fp32", "roll-out fused fp32", "1.2"),
    ("train bf16: plain autocast / fused", "plain bf16", "fused bf16", "2.2"),
    ("train bf16: plain fp32 / fused", "plain fp32", "fused bf16", "5"),
    ("inference bf16: plain fp32 / fused", "inference plain fp32", "inference fused bf16", "4.5"),
    ("inference bf16: plain autocast / fused", "inference plain bf16", "inference fused bf16", "2.5"),
    ("train fp32: convolutions alone / fused", "convolutions fp32", "fused fp32", "0.88"),
    ("train bf16: convolutions alone / fused", "convolutions bf16", "fused bf16", "0.6"),
    ("train fp32: torchgeo / fused", "torchgeo fp32", "fused fp32", "1.3"),
    ("train bf16: torchgeo autocast / fused", "torchgeo bf16", "fused bf16", "2.2"),
    ("train fp32: mlcast ConvGRU / fused", "mlcast ConvGRU fp32", "ConvGRU fused fp32", ""),
    ("train bf16: mlcast ConvGRU autocast / fused", "mlcast ConvGRU bf16", "ConvGRU fused bf16", ""),
]


def report(
    options: argparse.Namespace, seconds: dict[str, list[float]], peaks: dict[str, float], used: dict[str, float]
) -> None:
    """Print the table and write the JSON."""
    measured = [row for row in ROWS if row[1] in seconds]
    ratios = {what: ratio(seconds, slow, fast) for what, slow, fast, _ in measured}
    rows = [["what", "target", "median", "min", "max"]]
    for what, _, _, target in measured:
        rows.append([what, target, *(f"{ratios[what][k]:.2f}" for k in ("median", "min", "max"))])
    pixels = options.batch * options.frames * options.side**2
    channels = [options.channels, *[options.hidden] * (options.layers - 1)]
    gates = 4 if options.cell == "conv_lstm" else 3
    macs = pixels * 9 * gates * options.hidden * sum(c + options.hidden for c in channels)
    first = pixels * 9 * gates * options.hidden * options.channels  # the input gradient that nobody asks for
    rates = {n: 2 * (3 * macs - first) / sorted(seconds[f"fused {n}"])[options.rounds // 2] / 1e9 for n in peaks}
    for name, rate in rates.items():
        share = f"{rate / peaks[name]:.2f}"
        rows.append([f"train {name}: fused {rate:.0f} GFLOP/s of {peaks[name]:.0f} in matmul", "", share, "", ""])
    for name, reference in ((n, f"plain{n.partition(' ')[1]}{n.partition(' ')[2]}") for n in used if "plain" not in n):
        target = "0.6" if name.startswith("fused") else "0.4"
        rows.append([f"peak memory: {name} / {reference}", target, f"{used[name] / used[reference]:.2f}", "", ""])
    results = {
        "machine": machine(options.device),
        "shape": {n: getattr(options, n) for n in ("cell", "batch", "frames", "side", "hidden", "layers", "channels")},
        "seconds": seconds,
        "ratios": ratios,
        "gflops": rates,
        "matmul_gflops": peaks,
        "memory_mb": used,
    }
    print(results["machine"], results["shape"])
    write(options.json, results, rows)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cell", choices=list(CELLS), default="conv_lstm")
    for name, value in (("batch", 4), ("frames", 10), ("side", 64), ("hidden", 64), ("layers", 2), ("channels", 64)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: with one thread only")
    parser.add_argument("--quick", action="store_true", help="1 x 4 frames of 32 x 32")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.batch, options.frames, options.side = 1, 4, 32
    torch.set_num_threads(options.threads)
    if options.memory:
        measure_memory(options)
    else:
        measure(options)


if __name__ == "__main__":
    main()
