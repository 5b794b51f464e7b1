"""cubecast: nowcasts of gridded fields with an encoder-forecaster ConvLSTM, and of point series.

The names below are the public API; each is imported when it is first used, so that ``import cubecast`` is cheap.
"""

import importlib
from typing import Any

from cubecast import accessor as accessor
from cubecast.units import convert_units

_HOME = {
    "open_cube": "cubecast.sources",
    "open_cubes": "cubecast.sources",
    "generate_rain": "cubecast.sources.synthetic",
    "moving_mnist": "cubecast.sources.moving_mnist",
    "Config": "cubecast.config",
    "Nowcaster": "cubecast.nowcaster",
    "match_distribution": "cubecast.matching",
    "ensemble_mean": "cubecast.ensemble_products",
    "ensemble_probabilities": "cubecast.ensemble_products",
    "ensemble_quantiles": "cubecast.ensemble_products",
    "verify": "cubecast.verification",
    "evaluate": "cubecast.verification",
    "read_forecast": "cubecast.write",
    "write_forecast": "cubecast.write",
    "write_cube": "cubecast.write",
}

__all__ = ["convert_units"]
__all__ += list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cubecast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
