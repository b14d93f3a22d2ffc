"""One clip's file -> its pictures and its sound, or the reason why there are none."""
