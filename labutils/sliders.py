"""Sliders that redraw a picture. They are never needed: without ipywidgets a lab runs through all the same."""

from IPython.display import display

from .images import encode


def explore(draw, **sliders):
    """Show the picture `draw(**values)` over one slider for each of `sliders`, and redraw it while they move.

    draw     takes the values by name and returns a uint8 picture, (H, W) or RGB (H, W, 3)
    sliders  name=(low, high, step, start); whole numbers give a slider of whole numbers

    Returns the sliders by name, for code that wants to move them; {} where ipywidgets is not installed.
    """
    try:
        import ipywidgets as widgets
    except ImportError:
        print("The sliders need ipywidgets, which is not installed; the pictures above show the same.")
        return {}
    controls = {}
    for name, (low, high, step, start) in sliders.items():
        slider = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
        controls[name] = slider(start, min=low, max=high, step=step, description=name.replace("_", " "))
    picture = widgets.Image(format="png")

    def redraw(_=None):
        picture.value = encode(draw(**{name: control.value for name, control in controls.items()}), ".png")

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    display(widgets.VBox([picture, *controls.values()]))
    return controls
