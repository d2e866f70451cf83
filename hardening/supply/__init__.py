"""What qmdd is built from: locks with hashes, and the licences of everything in them."""
