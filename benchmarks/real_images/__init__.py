"""Real pixels through the real federation, at three sites that hardly see some of the classes."""
