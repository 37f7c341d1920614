"""One HTML page about a sweep."""
