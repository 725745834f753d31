"""CromSS: pre-training on noisy labels with several modalities, each judging the labels of the others (cromss.md).

One method whose parts are the modules of this folder, each one topic.
"""

from tilth.methods.cromss.method import Cromss

METHOD = Cromss
