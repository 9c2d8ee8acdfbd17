"""Self-contained HTML pages: pictures, curves and tables in one file that can be sent to anyone."""

from ..images.notebook import data_uri
from .chart import chart, thinned
from .page import line_chart, write_page

__all__ = ["chart", "data_uri", "line_chart", "thinned", "write_page"]
