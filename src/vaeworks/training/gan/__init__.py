"""The discriminator of a run: its training, its start, and the supervision of the balance."""
