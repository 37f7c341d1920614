"""Where the model meets the record and the sweep."""
