"""Tables in, rows ready for a backend out."""
