"""Kinds of data sources: folders, tars, the hub, streams, digits, sounds."""
