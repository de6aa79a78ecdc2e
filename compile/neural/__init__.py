"""Small networks: from a trained model to an int8 TFLite artifact and to C, without TensorFlow.

Read in this order: graph (the intermediate form), frontends/ (models into it), fold, run_float, quantise,
flatbuffer (graph to .tflite), reader (.tflite to graph), run_int8 (the integer arithmetic, in numpy), emit (the same
in C), cost, agreement, cascade.
"""
