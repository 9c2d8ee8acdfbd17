"""The folder of a run: preparation, checkpoints, and the record."""
