"""Pictures of schedules, runs, range tests and optimizers on their way, for a paper.

Each function draws with matplotlib (``pip install 'jopt[plot]'``) and returns the Axes,
to change and to save: ``ax.figure.savefig("schedules.pdf")``. None shows anything or
changes matplotlib's settings. Without ``ax`` the figure is as wide as a column, 3.5
inches; ``width=7`` is two columns. On Axes of your own, the font is yours.

The colours are those of Okabe and Ito, which everybody can tell apart. Lines differ in
their dashes too, so that they can be told apart in grey.
"""

from jopt.values.page import public_page


__getattr__, __dir__, __all__ = public_page(__name__, __file__)
