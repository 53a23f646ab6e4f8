"""Metrics of generated images: extractors, statistics, distances and reference statistics."""
