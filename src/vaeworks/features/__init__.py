"""Frozen networks that images are compared in: weights, backbones, and a small classifier of our own."""
