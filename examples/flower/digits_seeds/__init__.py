"""Handwritten digits, tuned by clients that exchange seeds and scalars."""
