"""What is done to pixels between the file and the network: normalisation, weak view, strong view, CutMix."""
