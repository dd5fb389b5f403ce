"""An ordinary Flower app that does what fedai's sites do in a round of this benchmark."""
