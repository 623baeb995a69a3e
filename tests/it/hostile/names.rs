//! Name servers that fail, deny or flood, and a Docker engine that stops answering.
