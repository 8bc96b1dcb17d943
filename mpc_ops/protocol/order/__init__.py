"""Shuffles with tags, sorts, merges, and rows at ranks."""
