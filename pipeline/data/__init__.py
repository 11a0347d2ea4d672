"""What models see: splits, removal masks, statistics, packed tensors, batches, the leak audit."""
