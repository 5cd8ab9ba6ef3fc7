"""Every public name of jopt.inspect."""
