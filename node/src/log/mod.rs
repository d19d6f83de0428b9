//! Every line of every instance, in one timeline on disk.
