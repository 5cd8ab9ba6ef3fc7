"""What a test can say of a picture."""

import numpy as np


def by_label(ax):
    """The lines of Axes that have a label."""
    return {
        line.get_label(): line
        for line in ax.get_lines()
        if not line.get_label().startswith("_")
    }


def legend(ax):
    """The words of the legend."""
    return [text.get_text() for text in ax.get_legend().get_texts()]


def pixels(ax):
    """The picture as an array of grey levels."""
    canvas = ax.figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].mean(-1)


def check(ax):
    """The picture is not blank, and no text or line of a legend covers data."""
    image = pixels(ax)
    assert 0.005 < (image < 200).mean() < 0.5
    renderer = ax.figure.canvas.get_renderer()
    width, height = ax.figure.canvas.get_width_height()
    for artist in [ax.get_legend(), ax.xaxis.label, ax.yaxis.label, *ax.texts]:
        if artist is None:
            continue
        box = artist.get_window_extent(renderer)
        assert box.x0 >= -1 and box.x1 <= width + 1, artist
        assert box.y0 >= -1 and box.y1 <= height + 1, artist
        if artist is ax.get_legend():
            assert box.y0 >= ax.get_window_extent().y1 - 1
