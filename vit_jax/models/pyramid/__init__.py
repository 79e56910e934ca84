"""What image encoders give beside their output: captures, maps of features; and encoders that give nothing else."""
