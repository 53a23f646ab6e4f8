"""What generated images are measured by: extractors, statistics, distances and references."""
