//! Hostile users of the admin API, and of the process as process 1.
