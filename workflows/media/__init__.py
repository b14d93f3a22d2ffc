"""Files of pictures and videos, read and written by commands and reports."""
