"""Fig. 4: an image and its NPR residual, in full precision and under MinMax at 4 bits."""

from ablation.command import main

if __name__ == "__main__":
    main(["fig4"], __doc__)
