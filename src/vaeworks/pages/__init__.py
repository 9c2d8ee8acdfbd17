"""Self-contained HTML pages: images, charts and tables in one file."""

from ..images.notebook import data_uri
from .chart import chart, chart_file, thinned
from .page import write_page

__all__ = ["chart", "chart_file", "data_uri", "thinned", "write_page"]
