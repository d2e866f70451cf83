"""Fig. 7: activations before and after the shifted logarithm, in the built-in checkpoint."""

from ablation.command import main

if __name__ == "__main__":
    main(["fig7"], __doc__)
