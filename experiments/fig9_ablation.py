"""Fig. 9: 2-bit N2UQ on RGB; NPR in its place; CQB added; SLR added."""

from ablation.command import main

if __name__ == "__main__":
    main(["fig9"], __doc__)
