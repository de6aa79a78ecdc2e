"""compile.demo: the shipped example, from recordings to a trained model, and how it was made."""
