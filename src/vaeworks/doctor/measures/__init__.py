"""What panels measure: functions of tensors, each tested where the answer is known."""
