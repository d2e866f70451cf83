"""Fig. 2: a plain ResNet-23 at 32, 8, 4 and 2 bits (LSQ) and 1 bit (ReActNet), on RGB and NPR."""

from ablation.command import main

if __name__ == "__main__":
    main(["fig2"], __doc__)
