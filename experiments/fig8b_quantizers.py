"""Fig. 8b: SLR off and on over MinMax, LSQ and N2UQ, at 2 bits on NPR with CQB."""

from ablation.command import main

if __name__ == "__main__":
    main(["fig8b"], __doc__)
