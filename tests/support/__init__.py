"""What several test files share: tiny networks, runs, processes, tapes."""
