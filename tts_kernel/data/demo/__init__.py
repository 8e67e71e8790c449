"""The embedded corpus of synthetic speech, clean or with every kind of fault planted in it."""
