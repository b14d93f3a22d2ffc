"""One stage in training: the loop, its state, its reports, and how it resumes."""
