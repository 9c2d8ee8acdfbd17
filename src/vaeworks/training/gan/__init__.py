"""The discriminator of a run: when it begins, how it is trained, and what is done when the balance is lost."""
