"""``qmdd demo``: a page on this machine where a person drops an image and sees what a bundle says.

``app`` is the web application, ``guard`` and ``body`` keep out what should not come in, ``turns``
bounds how much is done at once, ``answer`` scores, ``picture`` draws NPR, ``serve`` runs it all.
Nothing that is sent is written to a disk.
"""
