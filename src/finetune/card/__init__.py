"""6. What we did, written down: plain facts in, the text of README.md out.

``facts`` holds the dataclasses, ``render`` turns them into the card, ``redact`` keeps secrets and home
folders out of it, and ``plot`` draws the losses.
"""
