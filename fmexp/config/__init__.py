"""The configuration: every key, how Hydra composes it, what is refused."""
