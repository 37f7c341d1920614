"""Reading records back: is it better, can it be had again, what does it predict."""
