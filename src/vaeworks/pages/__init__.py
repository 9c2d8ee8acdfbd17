"""Self-contained HTML pages: pictures, curves and tables in one file that can be sent to anyone."""

from .page import data_uri, line_chart, write_page

__all__ = ["data_uri", "line_chart", "write_page"]
