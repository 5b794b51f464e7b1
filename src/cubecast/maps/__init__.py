"""Maps of fields and forecasts with cartopy, on the cube's own projection; no pyplot, and no network unless asked."""

from cubecast.maps.animation import animate
from cubecast.maps.figures import plot_comparison, plot_field, plot_leads, plot_systems, save_figure
from cubecast.maps.pictures import draw_maps

__all__ = ["animate", "draw_maps", "plot_comparison", "plot_field", "plot_leads", "plot_systems", "save_figure"]
