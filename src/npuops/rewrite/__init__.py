"""What is wrong with a graph and what cures it, each cure proved to keep the answers; and pruning, which does not."""
