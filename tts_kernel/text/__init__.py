"""From text to token ids, and to phones with the features of a text encoder."""
