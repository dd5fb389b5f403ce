"""Text burned into pictures: the corpus, the training of the detector, and its measurement beside its
peer.
"""
