"""The fused engine is the reference: values, gradients, precision, copies, processes, saved weights."""

import copy
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._dynamo.utils import counters

from cubecast.config import ModelConfig
from cubecast.errors import UsageError
from cubecast.nn import Cell, ConvLSTMCell, LSTMCell, RecurrentLayer, build_network, choose_engine, count_multiply_adds
from cubecast.nn.compiled import Kernel
from cubecast.nn.fused import FusedLSTM
from cubecast.nn.lstm_sequence import Way


@pytest.fixture(autouse=True)
def uncompiled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiling takes seconds and is tested where it says so."""
    if "compiled" in request.keywords:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def cell_of(kind: str, **settings: Any) -> Cell:
    torch.manual_seed(3)
    cell: Cell = LSTMCell(2, 3) if kind == "lstm" else ConvLSTMCell(2, 3, **settings)
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.4)
    return cell.double()


def inputs_of(cell: Cell, steps: int = 4, batch: int = 2) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    space = () if isinstance(cell, LSTMCell) else (4, 5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, *space, dtype=torch.float64, generator=generator)

    return draw(batch, steps, cell.in_channels), (draw(batch, 3), draw(batch, 3))


def weigh(*results: Tensor) -> Tensor:
    """A scalar in which every value has a weight of its own."""
    generator = torch.Generator().manual_seed(5)
    parts = [(r.double() * torch.randn(r.shape, dtype=torch.float64, generator=generator)).sum() for r in results]
    return torch.stack(parts).sum()


def run(layer: RecurrentLayer, x: Tensor, state: Any) -> tuple[Tensor, Tensor, Tensor]:
    outputs, (h, c) = layer(x, x.shape[1], state)
    return outputs, h, c


def same(one: Any, other: Any, atol: float = 1e-12) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=atol, check_stride=False)


KINDS = {"lstm": {}, "none": {}, "channel": {"peephole": "channel"}, "pixel": {"peephole": "pixel", "grid": (4, 5)}}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str, recompute: bool) -> None:
    cell = cell_of(kind, **KINDS[kind])
    layer = RecurrentLayer(cell, engine="fused", recompute=recompute)
    x, state = inputs_of(cell, steps=2, batch=1)
    names = [f"cell.{n}" for n, _ in cell.named_parameters()]

    def function(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor) -> Any:
        named = dict(zip(names, weights, strict=True))
        outputs, last = torch.func.functional_call(layer, named, (x, 2, (h, c)))
        return (outputs, *last)

    values = [v.detach().clone().requires_grad_() for v in (x, *state, *cell.parameters())]
    # Run twice, the second backward pass computes anew what the first gave back: another rounding.
    assert torch.autograd.gradcheck(function, values, atol=1e-6, fast_mode=True, nondet_tol=1e-12)
    assert torch.autograd.gradgradcheck(function, values, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("hoist", [False, True])
@pytest.mark.parametrize("chunk", [1, 2**12, 2**30])
def test_every_way_gives_the_same(hoist: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cubecast.nn.lstm_sequence.CHUNK", chunk)
    monkeypatch.setattr("cubecast.nn.lstm_sequence.TILE", 7)
    cell = cell_of("pixel", **KINDS["pixel"])
    x, (h, c) = inputs_of(cell, steps=5)
    assert isinstance(cell, ConvLSTMCell)
    weights = (cell.conv.weight, cell.conv.bias, cell.peepholes)
    given = [x, h, c, *weights]
    results = []
    for recompute in (False, True):
        for state in ((h, c), (None, None)):
            leaves = [t.detach().clone().requires_grad_() if t is not None else None for t in (x, *state, *weights)]
            way = Way(5, torch.float64, hoist=hoist, recompute=recompute)
            out = FusedLSTM.apply(way, cell, *leaves)
            grads = torch.autograd.grad(weigh(*out), [v for v in leaves if v is not None])
            results.append((recompute, state[0] is None, out, grads))
    for _, without, out, grads in results:
        state = None if without else (h, c)
        asked = [t for t in given if not (without and (t is h or t is c))]
        for t in asked:
            t.requires_grad_()
        outputs, last = cell.run(x, 5, state)
        same(out, (outputs, *last))
        same(grads, torch.autograd.grad(weigh(outputs, *last), asked))


@pytest.mark.parametrize("wanted", range(6))
def test_one_gradient_alone(wanted: int) -> None:
    cell = cell_of("channel", **KINDS["channel"])
    x, state = inputs_of(cell)
    tensors = [x, *state, *cell.parameters()]
    for index, tensor in enumerate(tensors):
        tensor.requires_grad_(index == wanted)
    found = []
    for engine in ("reference", "fused"):
        results = run(RecurrentLayer(cell, engine=engine), x, state)
        found.append([torch.autograd.grad(weigh(r), tensors[wanted], retain_graph=True)[0] for r in results])
    same(*found)


def test_no_gradients_are_recorded_where_none_are_wanted() -> None:
    cell = cell_of("none")
    x, state = inputs_of(cell)
    layer = RecurrentLayer(cell, engine="fused")
    expected = run(layer, x, state)
    with torch.no_grad():
        silent = run(layer, x, state)
    with torch.inference_mode():
        frozen = run(layer, x, state)
    for results in (silent, frozen, run(RecurrentLayer(copy.deepcopy(cell), engine="fused"), x, state)):
        same(results, expected, atol=1e-14)
    assert not any(r.requires_grad for r in silent)
    for parameter in cell.parameters():
        parameter.requires_grad_(False)
    assert not any(r.requires_grad for r in run(layer, x, state))


def test_used_twice_and_differentiated_twice() -> None:
    cell = cell_of("none")
    x, state = inputs_of(cell)
    found = []
    for engine in ("reference", "fused"):
        layer = RecurrentLayer(cell, engine=engine)
        first, h, c = run(layer, x, state)
        second, *_ = run(layer, first[:, :, :2] * x, (h, c))
        loss = weigh(first, second)
        once = torch.autograd.grad(loss, list(cell.parameters()), retain_graph=True)
        again = torch.autograd.grad(loss, list(cell.parameters()), retain_graph=True)  # buffers were given back
        same(once, again, atol=0 if engine == "reference" else 1e-13)
        steep = torch.autograd.grad(loss, list(cell.parameters()), create_graph=True)
        penalty = torch.autograd.grad(sum(g.square().sum() for g in steep), list(cell.parameters()))
        found.append((once, penalty))
    same(found[0][0], found[1][0])
    same(found[0][1], found[1][1], atol=1e-10)


def test_outputs_must_not_be_changed_before_the_backward_pass() -> None:
    cell = cell_of("none")
    x, state = inputs_of(cell)
    outputs, *_ = run(RecurrentLayer(cell, engine="fused"), x, state)
    with torch.no_grad():
        outputs.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


@pytest.mark.parametrize("kind", ["lstm", "none", "channel"])
def test_autocast_is_as_near_to_the_truth_as_the_reference(kind: str) -> None:
    torch.manual_seed(1)
    cell: Cell = LSTMCell(8, 16) if kind == "lstm" else ConvLSTMCell(8, 16, peephole=kind)
    space = () if kind == "lstm" else (12, 12)
    x = torch.randn(4, 8, 8, *space)

    def errors(results: list[Tensor], truth: list[Tensor]) -> list[float]:
        return [
            float((r.detach().double() - t.detach()).norm() / t.detach().norm())
            for r, t in zip(results, truth, strict=True)
        ]

    def everything(layer: RecurrentLayer, x: Tensor) -> list[Tensor]:
        outputs, state = layer(x, 8)
        return [outputs, *state, *torch.autograd.grad(weigh(outputs, *state), list(layer.parameters()))]

    truth = everything(RecurrentLayer(copy.deepcopy(cell).double(), engine="reference"), x.double())
    with torch.autocast("cpu", torch.bfloat16):
        plain = errors(everything(RecurrentLayer(cell, engine="reference"), x), truth)
        fused = errors(everything(RecurrentLayer(cell, engine="fused"), x), truth)
    assert all(f <= 1.5 * p for f, p in zip(fused, plain, strict=True)), (fused, plain)
    assert max(fused) > 1e-4  # it is bf16


def test_the_cell_state_stays_in_float32_under_autocast() -> None:
    cell = ConvLSTMCell(2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        outputs, (h, c) = RecurrentLayer(cell, engine="fused")(torch.randn(1, 2, 2, 4, 4), 2)
        double = RecurrentLayer(cell_of("none"), engine="fused")(torch.randn(1, 2, 2, 4, 4).double(), 2)[0]
    assert (outputs.dtype, h.dtype, c.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
    assert double.dtype == torch.float64


@pytest.mark.parametrize("cell", ["conv_lstm", "lstm"])
def test_a_whole_network_saved_with_one_engine_and_loaded_with_the_other(cell: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"cell": cell, "hidden_channels": [4, 3], "patch": 2 if cell == "conv_lstm" else 1}
    frames = torch.randn(2, 3, 2, 6, 8, dtype=torch.float64)
    found = []
    for engine in ("reference", "fused"):
        torch.manual_seed(0)
        network = build_network(ModelConfig(engine=engine, **settings), in_channels=2, out_channels=1).double()
        assert {m.engine for m in network.modules() if isinstance(m, RecurrentLayer)} == {engine}
        if engine == "fused":
            network.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        else:
            for parameter in network.parameters():
                nn.init.normal_(parameter, std=0.3)
            save_file(network.state_dict(), tmp_path / "weights.safetensors")
        forecast = network(frames, 3)
        found.append([forecast, *torch.autograd.grad(weigh(forecast), list(network.parameters()))])
    same(*found)
    assert count_multiply_adds(network.float(), (1, 3, 2, 6, 8), 3) > 0


@pytest.mark.parametrize(("side", "half", "fused"), [(4, True, False), (96, False, False), (96, True, True)])
def test_auto_takes_the_fused_engine_for_large_steps_under_autocast(side: int, half: bool, fused: bool) -> None:
    layer = RecurrentLayer(ConvLSTMCell(1, 8))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs, _ = layer(torch.zeros(1, 1, 1, side, side), 1)
    assert ("FusedLSTM" in type(outputs.grad_fn).__name__) is fused


def test_unknown_engines_and_wrong_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match="allowed: auto, reference, fused"):
        RecurrentLayer(ConvLSTMCell(1, 2), engine="quick")
    layer = RecurrentLayer(ConvLSTMCell(1, 2, peephole="pixel", grid=(4, 5)))
    choose_engine(layer, "fused")
    with pytest.raises(UsageError, match="found 2 channels"):
        layer(torch.zeros(1, 1, 2, 4, 5), 1)
    with pytest.raises(UsageError, match=r"found grid \(5, 4\)"):
        layer(torch.zeros(1, 1, 1, 5, 4), 1)


def test_a_failing_compiler_is_reported_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def call(*_: Any) -> None:
            raise RuntimeError("no working C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(Kernel, "failed", False)
    kernel = Kernel(lambda x: x + 1)
    with caplog.at_level(logging.WARNING):
        assert kernel.compiled(torch.ones(2)).tolist() == [2.0, 2.0]
        assert kernel.compiled(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert [r.message.count("no working C++ compiler") for r in caplog.records] == [1]


@pytest.mark.compiled
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch by torch
def test_compiled_gates_of_many_shapes_stay_compiled() -> None:
    """Dynamo's limit is 8 compilations; shapes, grids and widths vary more than that."""
    counters.clear()
    shapes = [(2, 3, 1), (3, 4, 2), (4, 5, 3), (5, 6, 1), (6, 4, 2), (7, 3, 3), (8, 9, 1), (3, 7, 1), (9, 8, 2)]
    for channels, side, batch in shapes:
        cell = ConvLSTMCell(1, channels).double()
        x = torch.randn(batch, 2, 1, side, side, dtype=torch.float64)
        found = []
        for engine in ("reference", "fused"):
            results = run(RecurrentLayer(cell, engine=engine), x, None)
            found.append([*results, *torch.autograd.grad(weigh(*results), list(cell.parameters()))])
        same(*found)
    assert not Kernel.failed
    assert counters["stats"]["unique_graphs"] == 2  # forward and backward
    assert not counters["graph_break"]


WORKER = """
import sys
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from cubecast.nn import ConvLSTMCell, RecurrentLayer

folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", f"file://{folder}/meeting{world}", rank=rank, world_size=world)
layer = RecurrentLayer(ConvLSTMCell(2, 3).double(), engine="fused")
tensors = load_file(f"{folder}/start.safetensors")
x = tensors.pop("x").chunk(world)[rank]
layer.load_state_dict(tensors)
model = torch.nn.parallel.DistributedDataParallel(layer)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
with torch.compiler.set_stance("force_eager"):
    for _ in range(3):
        optimizer.zero_grad()
        model(x, 4)[0].square().mean().backward()
        optimizer.step()
save_file(layer.state_dict(), f"{folder}/{rank}_of_{world}.safetensors")
dist.destroy_process_group()
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    cell = cell_of("none")
    layer = RecurrentLayer(cell)
    save_file({**layer.state_dict(), "x": inputs_of(cell, batch=4)[0]}, tmp_path / "start.safetensors")
    ranks = [(0, 1), (0, 2), (1, 2)]
    started = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), str(r), str(w)], stderr=subprocess.PIPE)
        for r, w in ranks
    ]
    for process in started:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error.decode()
    alone, first, second = (load_file(tmp_path / f"{r}_of_{w}.safetensors") for r, w in ranks)
    for name, before in layer.state_dict().items():
        same(first[name], alone[name])
        assert torch.equal(first[name], second[name])
        assert not torch.equal(alone[name], before)
