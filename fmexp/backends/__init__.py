"""The two ways to train a Factorization Machine."""
