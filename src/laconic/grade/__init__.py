"""Grade: completions in, correct or not, and the measures over them."""
