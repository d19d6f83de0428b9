//! The library that services supervised by hilum are written on. A worker also runs without a node.
