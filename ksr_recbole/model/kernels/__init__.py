"""What the models compute with: recurrences, memory, scores and losses, in fused loops."""
