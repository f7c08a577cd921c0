"""`make soak`: a long run at half of the machine's capacity, and a long run of chaos. Not part of the suite, but for a
short run that shows that they work.
"""
