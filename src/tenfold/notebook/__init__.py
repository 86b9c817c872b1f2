"""tenfold in a notebook: curves that are drawn while a training runs, pictures and tables of what comes of it.

    from tenfold import notebook

    with notebook.live() as listen:
        run = tenfold.train("digits", listen=listen)
    notebook.confusion(run.test)

A picture is a PNG file that the notebook keeps, so a page that shows the notebook shows it too; what the report draws
is drawn alike. Drawing needs matplotlib, and ``live`` IPython too: both come with ``tenfold[notebook]``, and are
imported when something is drawn, not before.
"""

from __future__ import annotations

from tenfold.notebook.curves import live
from tenfold.notebook.pictures import Picture, confusion, prediction, samples
from tenfold.notebook.tables import Table, table

__all__ = ["Picture", "Table", "confusion", "live", "prediction", "samples", "table"]
