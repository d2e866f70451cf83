"""What ``qmdd compare`` finds of two bundles or checkpoints without torch.

``facts`` says what each is, ``golden`` compares codes on golden images, ``paired`` the scores of
the same images, ``in_turn`` the time; ``bars`` says what is too much. Networks are compared in the
exporter's room, with torch.
"""
