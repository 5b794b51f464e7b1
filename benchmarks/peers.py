"""Recurrent layers of others, with the weights of ours copied in."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn


class Plain(nn.Module):
    """ConvLSTM layers written from the equations as public ones are: concatenate, one convolution, gates one by one."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(*layer.cell.conv.weight.shape[1::-1], 3, padding=1) for layer in layers)
        for conv, layer in zip(self.convs, layers, strict=True):
            conv.load_state_dict(layer.cell.conv.state_dict())

    def step(self, x: Tensor, states: list[tuple[Tensor, Tensor]]) -> Tensor:
        """One step of all layers; ``states`` is updated."""
        for index, conv in enumerate(self.convs):
            h, c = states[index]
            i, f, g, o = torch.split(conv(torch.cat([x, h], dim=1)), h.shape[1], dim=1)
            i, f, o, g = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o), torch.tanh(g)
            c = f * c + i * g
            x = o * torch.tanh(c)
            states[index] = (x, c)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """All steps."""
        hidden = self.convs[0].weight.shape[0] // 4
        zeros = x.new_zeros(x.shape[0], hidden, *x.shape[3:])
        states = [(zeros, zeros) for _ in self.convs]
        return torch.stack([self.step(x[:, t], states) for t in range(x.shape[1])], dim=1)


class TorchGeo(nn.Module):
    """torchgeo's ConvLSTM; its gates are stacked as i, f, o, g."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        convs = [layer.cell.conv for layer in layers]
        hidden = [conv.out_channels // 4 for conv in convs]
        module = _module("torchgeo", "models/convlstm.py")
        self.stack = module.ConvLSTM(convs[0].in_channels - hidden[0], hidden, 3, len(convs))
        for cell, conv in zip(self.stack.cell_list, convs, strict=True):
            for name, ours in conv.state_dict().items():
                i, f, g, o = ours.chunk(4)
                getattr(cell.conv, name).data.copy_(torch.cat([i, f, o, g]))

    def forward(self, x: Tensor) -> Tensor:
        """All steps."""
        return self.stack(x)[0][0]


class MlcastGRU(nn.Module):
    """mlcast's ConvGRU cells; their update gate keeps where ours renews, so its weights change sign."""

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        module = _module("mlcast", "models/convgru.py")
        self.cells = nn.ModuleList()
        for layer in layers:
            ours, hidden = layer.cell, layer.cell.hidden_channels
            cell = module.ConvGRUCell(ours.in_channels, hidden)
            r, z, n = ours.input.weight.chunk(3)
            u_r, u_z = ours.gates.weight.chunk(2)
            b_r, b_z, b_n = ours.input.bias.chunk(3)
            cell.combined_gates.weight.data = torch.cat([torch.cat([-z, -u_z], 1), torch.cat([r, u_r], 1)])
            cell.combined_gates.bias.data = torch.cat([-b_z, b_r])
            cell.out_gate.weight.data = torch.cat([n, ours.candidate.weight], 1)
            cell.out_gate.bias.data = b_n.clone()
            self.cells.append(cell)

    def forward(self, x: Tensor) -> Tensor:
        """All steps."""
        for cell in self.cells:
            outputs, h = [], None
            for t in range(x.shape[1]):
                h = cell(x[:, t], h)
                outputs.append(h)
            x = torch.stack(outputs, dim=1)
        return x


def available(peers: dict[str, Callable[[nn.ModuleList], nn.Module]], layers: nn.ModuleList) -> dict[str, nn.Module]:
    """The peers that can be made here; a line to stderr for each that cannot."""
    found = {}
    for name, make in peers.items():
        try:
            found[name] = make(layers)
        except ImportError as error:
            print(f"{name} left out: {error}", file=sys.stderr)
    return found


def _module(package: str, path: str) -> ModuleType:
    """One file of an installed package, without what else the package imports (torchvision, Lightning).

    Raises:
        ImportError: it is not installed, or the file itself needs what is not there.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{package} is not installed (pip install --no-deps {package})")
    location = f"{spec.submodule_search_locations[0]}/{path}"
    of_file = importlib.util.spec_from_file_location(f"_peer_{package}", location)
    if of_file is None or of_file.loader is None:
        raise ImportError(f"{package} has no {path}")
    module = importlib.util.module_from_spec(of_file)
    of_file.loader.exec_module(module)
    return module
