"""Settings for kinds of data, over the defaults of `cubecast.config`."""

from __future__ import annotations

from typing import Any

from cubecast.errors import UsageError

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "rain": {
        "data": {"crops_per_window": 6, "wet_bias": 0.3, "batch_size": 4, "flips": True},
        "model": {"coordinates": "lagrangian", "bands": 6},
        "loss": {"kind": "balanced", "thresholds": [5.0, 10.0], "weights": [1.0, 2.0, 3.0]},
        "training": {"learning_rate": 2e-3, "epochs": 8, "max_minutes": 15, "patience": None},
        # 15 minutes: two events must train on two busy cores; give larger archives more with max_minutes.
    },
    "sst": {
        # A few years of months are a short record: a small network, mirrored samples, and in the end all of it.
        "task": {"history": 3, "horizon": 3},
        "data": {"crop": 48, "crops_per_window": 2, "flips": True, "negate": True, "validate_whole": True},
        "scaling": {"harmonics": 3},
        "model": {"hidden_channels": [16], "patch": 2, "position": True, "season": True},
        "training": {
            "learning_rate": 3e-3,
            "weight_decay": 1.0,
            "epochs": 20,
            "patience": None,
            "refit": True,
            "precision": "fp32",
        },
    },
    "series": {
        # Series are short and noisy: few steps of plain gradient descent, averaged, and in the end on all of it.
        "task": {"history": 20, "horizon": 1},
        "data": {"crop": None, "batch_size": 32},
        "model": {"cell": "gru", "hidden_channels": [64], "patch": 1},
        "training": {
            "optimizer": "sgd",
            "learning_rate": 1e-2,
            "epochs": 60,
            "patience": None,
            "refit": True,
            "precision": "fp32",
        },
    },
    "general": {},
    "moving_mnist": {
        "task": {"history": 10, "horizon": 10},
        "data": {"crop": None, "batch_size": 16},
        "scaling": {"kind": "identity"},
        "model": {"hidden_channels": [64, 64], "strides": [1, 1], "mask_channel": False, "residual": False},
        "training": {"epochs": 20, "patience": None},
    },
}
"""Settings that differ from the defaults for each kind of data; general: none, for fields that are none of these."""


def preset_settings(name: str) -> dict[str, dict[str, Any]]:
    """What the preset of a name sets, room by room.

    Raises:
        UsageError: an unknown preset.
    """
    if name not in PRESETS:
        raise UsageError("unknown preset", found=repr(name), allowed=", ".join(PRESETS))
    return PRESETS[name]
