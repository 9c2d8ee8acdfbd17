"""Self-contained HTML pages: images, charts and tables in one file."""

from ..images.notebook import data_uri
from .chart import chart, thinned
from .page import line_chart, write_page

__all__ = ["chart", "data_uri", "line_chart", "thinned", "write_page"]
