"""Where images come from: folders, tars, the hub, streams, digits, sound."""
