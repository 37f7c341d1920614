"""Where Hydra looks for plugins."""
