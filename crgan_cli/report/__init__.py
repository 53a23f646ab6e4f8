"""From run folders to tables and pictures: read files, group over seeds, compare, render."""
