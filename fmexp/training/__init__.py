"""Epochs, validation, stopping and divergence, the same for every backend."""
