"""A seeded generator of rain: radar-like cubes whose true motion is known."""

from cubecast.sources.synthetic.flow import Eddy, Flow
from cubecast.sources.synthetic.rain import generate_rain, motion

__all__ = ["Eddy", "Flow", "generate_rain", "motion"]
