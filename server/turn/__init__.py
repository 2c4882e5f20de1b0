"""Who has the floor: speech, endpointing, playout. Pure: time comes in as an argument."""
