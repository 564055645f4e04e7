"""What is proved at the start of a run, on the model and the data at hand.

Tests prove it for the models that they know and the libraries of that day.  A model of another kind, or a library that
has changed since, is found here, for the price of about two forward passes; each module is one question.
"""
