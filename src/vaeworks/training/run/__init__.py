"""The folder of a run: its record, its checkpoints, and what it starts from."""
