"""Every command that writes is killed at every moment; then its place is looked at."""
