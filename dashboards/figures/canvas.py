"""What the matplotlib figures share: ink, empty figures, quiet axes.

Drawn without a display; no state of pyplot is touched.
"""

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, QUIET, LINE = "#222222", "#5c5c5c", "#d8d8d8"

DOTS = 130
"""per inch"""

SHEET_DOTS = 110
"""per inch, of sheets of many images"""


def empty_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_facecolor("white")
    return figure


def dress(place: Axes) -> None:
    place.spines[["top", "right"]].set_visible(False)
    place.spines[["left", "bottom"]].set_color(LINE)
    place.tick_params(labelsize=8, colors=QUIET)
    place.grid(color=LINE, linewidth=0.6, alpha=0.7)
    place.ticklabel_format(useOffset=False)
    place.set_axisbelow(True)
