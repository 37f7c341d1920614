"""The ways to train a Factorization Machine (`base.MODULES`)."""
