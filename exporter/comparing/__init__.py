"""What ``qmdd compare`` finds of two networks with torch: weights, thresholds, the rest."""
