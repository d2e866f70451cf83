"""All figures, one cell after the other. Kill it whenever you like; it goes on when run again."""

from ablation.command import main
from ablation.figures import FIGURES

if __name__ == "__main__":
    main(list(FIGURES), __doc__)
