"""What the scripts of ``experiments/`` share: cells, their training, results, plots, the report."""
