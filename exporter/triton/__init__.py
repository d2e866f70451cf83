"""NVIDIA Triton model repositories: bundles served by an engine that is there already."""
