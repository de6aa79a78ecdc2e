"""Small networks: from a trained model to an int8 TFLite artifact and to C, without TensorFlow.

Read in this order: graph (the intermediate form), frontends/ (models into it), fold, run_float, quantise, flatbuffer
(graph to .tflite), reader (.tflite to graph), lower to integer (the arithmetic), run_int8 (it in numpy), layers and
emit (it in C, with the kernels of c/), cost, agreement, network (all of these in a row), cascade, attach, bundle.
"""
