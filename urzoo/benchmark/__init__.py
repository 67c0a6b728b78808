"""What is timed and against whom: the library behind `urzoo bench`."""
