//! Registries that are slow, split their answers, or send too much.
