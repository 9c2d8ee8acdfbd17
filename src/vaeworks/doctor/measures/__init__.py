"""Measurements of the panels: functions of tensors, each tested where the answer is known."""
