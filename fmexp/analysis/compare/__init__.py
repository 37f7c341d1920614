"""What differs between runs, and whether one is really better."""
