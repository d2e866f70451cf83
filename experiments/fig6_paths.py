"""Fig. 6: what CQB's main and auxiliary path carry, in the built-in 2-bit checkpoint."""

from ablation.command import main

if __name__ == "__main__":
    main(["fig6"], __doc__)
