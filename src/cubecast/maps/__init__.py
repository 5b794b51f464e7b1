"""Maps of fields and forecasts with cartopy, on the cube's own projection; no pyplot, and no network unless asked."""

from cubecast.maps.animation import animate
from cubecast.maps.figures import draw_maps, plot_comparison, plot_field, plot_leads, save_figure

__all__ = ["animate", "draw_maps", "plot_comparison", "plot_field", "plot_leads", "save_figure"]
