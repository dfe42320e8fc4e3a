"""What must have one definition: data, metrics, schedules, seeds, runs, records."""

import os

# transformers imports TensorFlow wherever it is installed, which costs seconds and memory in every
# process. Only the Universal Sentence Encoder needs TensorFlow, and imports it itself.
os.environ.setdefault("USE_TF", "0")
