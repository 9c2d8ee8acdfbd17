"""What people see of a run: log, terminal, page, alarms, card, trackers."""
