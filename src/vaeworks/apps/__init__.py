"""What a VAE is good for: variety, refinement, restoration, anomalies, augmentation, features."""
