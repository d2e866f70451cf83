"""Fig. 3: quantisation error of each layer, with RGB and with NPR as input."""

from ablation.command import main

if __name__ == "__main__":
    main(["fig3"], __doc__)
