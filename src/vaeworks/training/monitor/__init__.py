"""Monitoring of a run: log, alarms, terminal, page, trackers, and the model card."""
