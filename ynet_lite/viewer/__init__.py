"""Things to look at: the page to click through and its static copy."""
