"""Files and folders that are whole or absent: names, temporaries, locks."""
