"""From the history of a run to what to do about it. Reads run folders and event files, never live objects."""
