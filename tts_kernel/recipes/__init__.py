"""One folder per family: what is trained, on what, with which losses; its imports are the index of the family."""
