//! Byte streams that are easy to lose: urgent data, passed descriptors, answers sent before the request was read.
